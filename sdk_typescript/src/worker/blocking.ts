/**
 * The stack of the main thread, seen from another thread while it is blocked.
 *
 * V8's debugger interrupts JavaScript wherever it is, tells the stack, and goes on at once. Code that blocks outside of
 * JavaScript (a child process that is waited for, say) is not seen in time; then there is no stack.
 */
import inspector from "node:inspector";

const PATIENCE_MS = 500;
const MOST_FRAMES = 12;

/** Give the main thread's stack as text, innermost first; "" if it can't be had. */
export async function mainThreadStack(): Promise<string> {
  const session = new inspector.Session();
  const files = new Map<string, string>();
  try {
    session.connectToMainThread();
    return await new Promise<string>((resolve) => {
      const timer = setTimeout(resolve, PATIENCE_MS, "");
      session.on("Debugger.scriptParsed", ({ params }) => files.set(params.scriptId, params.url));
      session.on("Debugger.paused", ({ params }) => {
        clearTimeout(timer);
        session.post("Debugger.resume");
        resolve(
          params.callFrames
            .slice(0, MOST_FRAMES)
            .map((frame) => line(frame, files))
            .join("\n"),
        );
      });
      session.post("Debugger.enable", (closed) => {
        if (closed === null) session.post("Debugger.pause");
      });
    });
  } catch {
    return ""; // an observation is not worth a failure
  } finally {
    session.removeAllListeners(); // a pause on its way finds no session to answer
    session.disconnect(); // which lets a paused thread go on too
  }
}

function line({ functionName, location }: inspector.Debugger.CallFrame, files: ReadonlyMap<string, string>): string {
  const at = `${String(location.lineNumber + 1)}:${String((location.columnNumber ?? 0) + 1)}`;
  return `    at ${functionName || "<anonymous>"} (${files.get(location.scriptId) ?? ""}:${at})`;
}
