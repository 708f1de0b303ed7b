//! What the worker shows to the executor and wants to see of it, by the variables of docs/security.md.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How to connect.
pub struct Security {
    /// The metadata `authorization`.
    pub authorization: Option<MetadataValue<Ascii>>,
    tls: Option<ClientTlsConfig>,
}

impl Security {
    /// Reads the STEPWIRE_* variables, as fit for these addresses.
    pub fn from_environment(addresses: &[String]) -> Result<Self, String> {
        let token = read_token()?;
        let files = ["STEPWIRE_TLS_CA", "STEPWIRE_TLS_CERTIFICATE", "STEPWIRE_TLS_KEY"];
        let encrypted = yes_or_no("STEPWIRE_TLS", files.iter().any(|name| !variable(name).is_empty()))?;
        let far = addresses.iter().find(|address| !is_loopback(address));
        if let Some(address) = far
            && !encrypted
            && !token.is_empty()
            && !yes_or_no("STEPWIRE_PLAINTEXT_TOKEN", false)?
        {
            return Err(format!(
                "the token would go to {address} in plaintext, for everybody on the way to read: set STEPWIRE_TLS=1; \
                 or STEPWIRE_PLAINTEXT_TOKEN=1, if the network in between is safe"
            ));
        }
        let authorization = if token.is_empty() {
            None
        } else {
            Some(format!("Bearer {token}").parse().map_err(|_| "STEPWIRE_TOKEN is no token".to_owned())?)
        };
        Ok(Security { authorization, tls: if encrypted { Some(tls()?) } else { None } })
    }

    /// Gives the endpoint at HOST:PORT.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let wrong = |error: tonic::transport::Error| format!("{address} is no address of an executor: {error}");
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(wrong)?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(10)).tcp_nodelay(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
            None => Ok(endpoint),
        }
    }
}

fn tls() -> Result<ClientTlsConfig, String> {
    let read = |name: &str| fs::read(variable(name)).map_err(|error| format!("{name}: {error}"));
    let mut config = ClientTlsConfig::new();
    if variable("STEPWIRE_TLS_CA").is_empty() {
        return Err("this example knows no authorities of its own: name a file in STEPWIRE_TLS_CA".into());
    }
    config = config.ca_certificate(Certificate::from_pem(read("STEPWIRE_TLS_CA")?));
    if !variable("STEPWIRE_TLS_CERTIFICATE").is_empty() {
        config = config.identity(Identity::from_pem(read("STEPWIRE_TLS_CERTIFICATE")?, read("STEPWIRE_TLS_KEY")?));
    }
    Ok(config)
}

fn read_token() -> Result<String, String> {
    let (token, file) = (variable("STEPWIRE_TOKEN"), variable("STEPWIRE_TOKEN_FILE"));
    if file.is_empty() {
        return Ok(token.trim().to_owned());
    }
    if !token.is_empty() {
        return Err("both a token and a token file: give one of STEPWIRE_TOKEN and STEPWIRE_TOKEN_FILE".into());
    }
    let text = fs::read_to_string(&file).map_err(|error| format!("STEPWIRE_TOKEN_FILE: {error}"))?;
    let token = text.trim();
    if token.is_empty() || !token.chars().all(|each| each.is_ascii_graphic()) {
        return Err(format!("what is in {file} is no token: a token is one line of letters, digits and signs"));
    }
    Ok(token.to_owned())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn yes_or_no(name: &str, otherwise: bool) -> Result<bool, String> {
    match variable(name).to_lowercase().as_str() {
        "" => Ok(otherwise),
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other => Err(format!("{name}={other:?} is neither yes nor no: write 1 or 0")),
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
