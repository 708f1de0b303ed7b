import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Addresses, channelOptions, executorAddress, proxyNote } from "../src/channel.js";
import { isLoopback, Security } from "../src/security.js";

const folder = mkdtempSync(join(tmpdir(), "stepwire-"));
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

afterAll(() => {
  rmSync(folder, { recursive: true });
});

describe("security", () => {
  test("a token goes to another machine in plaintext only if that is asked for", () => {
    const token = "abc";
    expect(() => {
      new Security({ token }).check("example.org:1");
    }).toThrow(/in plaintext/);
    new Security({ token }).check("127.0.0.1:1,localhost:2,[::1]:3,unix:/x");
    new Security({ token, plaintextToken: true }).check("example.org:1");
    new Security({ token, tls: true }).check("example.org:1");
    new Security().check("example.org:1");
  });

  test("a token is read from its file, each time", () => {
    const tokenFile = file("token", "abc\n");
    const security = new Security({ tokenFile });
    expect(security.readToken()).toBe("abc");
    writeFileSync(tokenFile, "def\n");
    expect(security.readToken()).toBe("def");
    writeFileSync(tokenFile, "");
    expect(() => security.readToken()).toThrow(/is no token/);
    expect(() => new Security({ tokenFile, token: "abc" }).readToken()).toThrow(/both a token and a token file/);
    expect(() => new Security({ tokenFile: join(folder, "none") }).readToken()).toThrow(/STEPWIRE_TOKEN_FILE/);
    expect(() => new Security({ token: "a b" }).readToken()).toThrow(/is no token/);
  });

  test("files of TLS are PEM and come in pairs", () => {
    const pem = file("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    const security = new Security({ tlsCa: pem });
    expect(security.usesTls).toBe(true);
    expect(security.readTls().ca?.toString()).toContain("BEGIN");
    expect(() => new Security({ tlsCertificate: pem }).readTls()).toThrow(
      /STEPWIRE_TLS_CERTIFICATE takes STEPWIRE_TLS_KEY/,
    );
    expect(() => new Security({ tlsCa: file("no.pem", "x") }).readTls()).toThrow(/is not PEM/);
    expect(new Security({ tlsCa: pem, tls: false }).usesTls).toBe(false);
  });

  test("the environment says it by the same names", () => {
    const security = Security.fromEnvironment({
      STEPWIRE_TOKEN: "abc",
      STEPWIRE_TLS: "yes",
      STEPWIRE_TLS_CA: "ca.pem",
    });
    expect(security.options).toMatchObject({ token: "abc", tls: true, tlsCa: "ca.pem", plaintextToken: false });
    expect(() => Security.fromEnvironment({ STEPWIRE_TLS: "maybe" })).toThrow(/neither yes nor no/);
  });

  test("what stays on this machine", () => {
    for (const address of ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x"]) {
      expect(isLoopback(address), address).toBe(true);
    }
    for (const address of ["10.0.0.1:1", "127.example.org:1", "localhost.example.org:1"]) {
      expect(isLoopback(address), address).toBe(false);
    }
  });
});

describe("addresses", () => {
  test("what was given, else the variable, else the default", () => {
    const environment = { STEPWIRE_EXECUTOR: "b:2" };
    expect(executorAddress("a:1", environment)).toBe("a:1");
    expect(executorAddress(undefined, environment)).toBe("b:2");
    expect(executorAddress(undefined, {})).toBe("127.0.0.1:8377");
    expect(executorAddress("a:1, b:2,unix:/x", {})).toBe("a:1,b:2,unix:/x");
  });

  test.each(["", "a", "a:", ":1", "http://a:1", "a:0", "a:65536", "a:1,", "x:y", "::1:8377", "unix:", "a b:1"])(
    "%j is none",
    (address) => {
      expect(() => executorAddress(address, {})).toThrow(/is no address of an executor/);
      if (address)
        expect(() => executorAddress(undefined, { STEPWIRE_EXECUTOR: address })).toThrow(/from STEPWIRE_EXECUTOR/);
    },
  );

  test("an IPv6 address in brackets is one", () => {
    expect(executorAddress("[::1]:8377", {})).toBe("[::1]:8377");
  });

  test.each(["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/x"])("no proxy is asked for %s", (address) => {
    expect(channelOptions(address)["grpc.enable_http_proxy"]).toBe(0);
    expect(proxyNote(address, { http_proxy: "http://proxy:3128" })).toBe("");
  });

  test("an error says which proxy was used, without its password", () => {
    const environment = { https_proxy: "http://me:secret@proxy:3128", no_proxy: "corp, .internal" };
    expect(channelOptions("far:1")["grpc.enable_http_proxy"]).toBeUndefined();
    expect(proxyNote("far:1", environment)).toBe(
      ", through the proxy proxy:3128 of https_proxy: set no_proxy=far to go there directly",
    );
    expect(proxyNote("x.internal:1", environment)).toBe("");
    expect(proxyNote("far:1", {})).toBe("");
  });

  test("the next one is tried when one is of no use", () => {
    const addresses = new Addresses("a:1,b:2");
    addresses.leave("b:2");
    expect(addresses.current).toBe("a:1");
    addresses.leave("a:1");
    expect(addresses.current).toBe("b:2");
    addresses.leave("b:2");
    expect(addresses.current).toBe("a:1");
  });
});
