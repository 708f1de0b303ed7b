/** What a client or a worker shows to the executor, and what it wants to see of it: the token, TLS, certificates. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { StepwireError } from "./errors.js";
import { checkOptions } from "./options.js";

const YES = ["1", "true", "yes", "on"];
const SECURITY_OPTIONS = ["token", "tokenFile", "tls", "tlsCa", "tlsCertificate", "tlsKey", "plaintextToken"];
const NO = ["0", "false", "no", "off"];

/** Options of `Security`; each has a variable: `tokenFile` is STEPWIRE_TOKEN_FILE. Files are paths. */
export interface SecurityOptions {
  /** The token itself. */
  token?: string;
  /** A file with the token. */
  tokenFile?: string;
  /** Connect with TLS; implied by the files below. */
  tls?: boolean | undefined;
  /** A PEM file with the CA of the executor's certificate; by default those count that Node brings along. */
  tlsCa?: string;
  /** Our own certificate, a PEM file, for an executor that asks for it. */
  tlsCertificate?: string;
  /** The key of that certificate, a PEM file. */
  tlsKey?: string;
  /** Send the token to another machine without TLS all the same. */
  plaintextToken?: boolean;
}

/**
 * How to connect: `new Client({ security: new Security({ tokenFile: "shop.token", tlsCa: "ca.pem" }) })`.
 *
 * With TLS there is never a way back to plaintext. Without a Security clients and workers take what the STEPWIRE_*
 * variables say. Files are read anew for each connection of a worker.
 */
export class Security {
  readonly options: Readonly<SecurityOptions>;

  constructor(options: SecurityOptions = {}) {
    checkOptions(options, SECURITY_OPTIONS, "Security", StepwireError);
    this.options = { ...options };
  }

  /** Read the STEPWIRE_* variables. Throws StepwireError for what is neither yes nor no. */
  static fromEnvironment(environment: Readonly<Record<string, string | undefined>> = process.env): Security {
    return new Security({
      token: environment.STEPWIRE_TOKEN ?? "",
      tokenFile: environment.STEPWIRE_TOKEN_FILE ?? "",
      tls: yesOrNo("STEPWIRE_TLS", environment),
      tlsCa: environment.STEPWIRE_TLS_CA ?? "",
      tlsCertificate: environment.STEPWIRE_TLS_CERTIFICATE ?? "",
      tlsKey: environment.STEPWIRE_TLS_KEY ?? "",
      plaintextToken: yesOrNo("STEPWIRE_PLAINTEXT_TOKEN", environment) ?? false,
    });
  }

  /** Whether connections are encrypted. */
  get usesTls(): boolean {
    const { tls, tlsCa, tlsCertificate, tlsKey } = this.options;
    return tls ?? [tlsCa, tlsCertificate, tlsKey].some(Boolean);
  }

  /** Throw StepwireError if this is not fit to connect to HOST:PORT or unix:PATH, or several of them. */
  check(address: string): void {
    if (this.readToken() && !this.usesTls && !this.options.plaintextToken && !address.split(",").every(isLoopback)) {
      throw new StepwireError(
        `the token would go to ${address} in plaintext, for everybody on the way to read: set STEPWIRE_TLS=1 (and ` +
          "STEPWIRE_TLS_CA, if the CA is your own); or STEPWIRE_PLAINTEXT_TOKEN=1, if the network in between is safe",
      );
    }
    if (this.usesTls) this.readTls();
  }

  /** Give the token; "" if there is none. Throws StepwireError. */
  readToken(): string {
    const { token, tokenFile } = this.options;
    if (token && tokenFile) {
      throw new StepwireError("both a token and a token file: give one of STEPWIRE_TOKEN and STEPWIRE_TOKEN_FILE");
    }
    const found = (tokenFile ? read(tokenFile, "STEPWIRE_TOKEN_FILE").toString() : (token ?? "")).trim();
    if ((tokenFile && !found) || !/^[\x21-\x7e]*$/.test(found)) {
      const origin = tokenFile ? `in ${tokenFile}` : "given";
      throw new StepwireError(`what is ${origin} is no token: a token is one line of letters, digits and signs`);
    }
    return found;
  }

  /** Give the CA, our key and our certificate, as PEM; null for what is not set. Throws StepwireError. */
  readTls(): { ca: Buffer | null; key: Buffer | null; certificate: Buffer | null } {
    const { tlsCa, tlsCertificate, tlsKey } = this.options;
    if (Boolean(tlsCertificate) !== Boolean(tlsKey)) {
      const names = ["STEPWIRE_TLS_CERTIFICATE", "STEPWIRE_TLS_KEY"];
      const [given, missing] = tlsCertificate ? names : names.reverse();
      throw new StepwireError(
        `${String(given)} takes ${String(missing)} too: a certificate is of no use without its key`,
      );
    }
    return {
      ca: readPem(tlsCa, "STEPWIRE_TLS_CA"),
      key: readPem(tlsKey, "STEPWIRE_TLS_KEY"),
      certificate: readPem(tlsCertificate, "STEPWIRE_TLS_CERTIFICATE"),
    };
  }
}

/** Give what was given to connect with, else what the environment says. Throws StepwireError for what is no Security. */
export function securityOf(given: Security | undefined): Security {
  if (given === undefined) return Security.fromEnvironment();
  if (given instanceof Security) return given;
  throw new StepwireError("what was given as security is no Security: give new Security({ token, tlsCa, … })");
}

/** Say whether an address (HOST:PORT or unix:PATH) stays on this machine. */
export function isLoopback(address: string): boolean {
  if (address.startsWith("unix:")) return true;
  const host = address.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  if (isIP(host) === 4) return host.startsWith("127.");
  return host === "::1" || host === "localhost";
}

function yesOrNo(name: string, environment: Readonly<Record<string, string | undefined>>): boolean | undefined {
  const value = environment[name];
  if (value === undefined || value === "") return undefined;
  if (YES.includes(value.toLowerCase())) return true;
  if (NO.includes(value.toLowerCase())) return false;
  throw new StepwireError(`${name}=${JSON.stringify(value)} is neither yes nor no: write 1 or 0`);
}

function read(file: string, name: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new StepwireError(`can't read ${file} (${name}): ${error instanceof Error ? error.message : String(error)}`);
  }
}

function readPem(file: string | undefined, name: string): Buffer | null {
  if (!file) return null;
  const text = read(file, name);
  if (!text.includes("-----BEGIN ")) {
    throw new StepwireError(`${file} (${name}) is not PEM: it has no line with -----BEGIN`);
  }
  return text;
}
