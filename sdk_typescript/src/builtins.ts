/**
 * Node's own modules for CommonJS code that a bundler has put into an ES module.
 *
 * esbuild leaves `require("process")` of gRPC as it is, and such a module has no `require` by itself: an import would
 * fail before a line of the program has run. While gRPC is loaded it finds a global one.
 */
import { createRequire } from "node:module";

const scope = globalThis as { require?: unknown };
const isMissing = scope.require === undefined;
if (isMissing) scope.require = createRequire(process.execPath);

/** Take the global `require` away again, once gRPC is loaded. */
export function forgetRequire(): void {
  if (isMissing) delete scope.require;
}
