// What the worker shows to the executor and wants to see of it, by the variables of docs/security.md.

package stepwire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// security says how to connect.
type security struct {
	token       string
	credentials credentials.TransportCredentials
}

// securityFromEnvironment reads the STEPWIRE_* variables, as fit for these addresses.
func securityFromEnvironment(addresses []string) (security, error) {
	token, err := readToken()
	if err != nil {
		return security{}, err
	}
	ca, certificate, key := os.Getenv("STEPWIRE_TLS_CA"), os.Getenv("STEPWIRE_TLS_CERTIFICATE"), os.Getenv("STEPWIRE_TLS_KEY")
	encrypted, err := yesOrNo("STEPWIRE_TLS", ca+certificate+key != "")
	if err != nil {
		return security{}, err
	}
	plaintextToken, err := yesOrNo("STEPWIRE_PLAINTEXT_TOKEN", false)
	if err != nil {
		return security{}, err
	}
	if !encrypted {
		for _, address := range addresses {
			if token != "" && !plaintextToken && !isLoopback(address) {
				return security{}, fmt.Errorf("the token would go to %s in plaintext, for everybody on the way to read: set "+
					"STEPWIRE_TLS=1; or STEPWIRE_PLAINTEXT_TOKEN=1, if the network in between is safe", address)
			}
		}
		return security{token, insecure.NewCredentials()}, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return security{}, fmt.Errorf("STEPWIRE_TLS_CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return security{}, fmt.Errorf("STEPWIRE_TLS_CA: %s holds no certificate in PEM", ca)
		}
	}
	if certificate+key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return security{}, fmt.Errorf("STEPWIRE_TLS_CERTIFICATE and STEPWIRE_TLS_KEY: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return security{token, credentials.NewTLS(config)}, nil
}

func readToken() (string, error) {
	token, file := os.Getenv("STEPWIRE_TOKEN"), os.Getenv("STEPWIRE_TOKEN_FILE")
	if token != "" && file != "" {
		return "", fmt.Errorf("both a token and a token file: give one of STEPWIRE_TOKEN and STEPWIRE_TOKEN_FILE")
	}
	if file == "" {
		return strings.TrimSpace(token), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("STEPWIRE_TOKEN_FILE: %w", err)
	}
	token = strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("what is in %s is no token: a token is one line of letters, digits and signs", file)
	}
	return token, nil
}

func yesOrNo(name string, otherwise bool) (bool, error) {
	switch strings.ToLower(os.Getenv(name)) {
	case "":
		return otherwise, nil
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s=%q is neither yes nor no: write 1 or 0", name, os.Getenv(name))
}

func isLoopback(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
