/**
 * Where this package stands. `import.meta.url` would say it, but is not there in CommonJS, which bundlers make of this.
 */
import { pathToFileURL } from "node:url";

/** The package's folder, a URL that ends in "/"; undefined where a bundler has put the package among other code. */
export const FOLDER = folderOf(ownFile());

/** Give the package's folder by the path or URL of this file. */
export function folderOf(file: string): string | undefined {
  const folder = /^(.*[\\/])(?:dist|src)[\\/]place\.[jt]s$/.exec(file.replace(/\?.*$/, ""))?.[1];
  return folder === undefined || /^\w{2,}:/.test(folder) ? folder : pathToFileURL(folder).href;
}

function ownFile(): string {
  const { stackTraceLimit } = Error;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- put back as it was, not called
  const { prepareStackTrace } = Error;
  try {
    Error.stackTraceLimit = 1;
    Error.prepareStackTrace = (_, [frame]) => frame?.getFileName() ?? "";
    return String(new Error().stack);
  } catch {
    return ""; // somebody has frozen Error
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    Error.prepareStackTrace = prepareStackTrace;
  }
}
