/** Before all tests: have what they start killed when vitest has ended, however it did. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { python } from "./processes.js";

const GUARD = fileURLToPath(new URL("../../../sdk_python/stepwire/testing/guard.py", import.meta.url));

/** Mark all children by a variable of their environment, and start the guard that looks for it. */
export default function setup(): void {
  const name = `ENDS_WITH_${String(process.pid)}_${crypto.randomUUID()}`;
  execFileSync(python(), ["-I", "-S", GUARD, String(process.pid), name], { cwd: "/", stdio: "ignore" });
  process.env[name] = "1";
}
