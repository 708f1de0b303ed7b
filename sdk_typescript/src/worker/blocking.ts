/**
 * The stack of the main thread, seen from another thread while it is blocked.
 *
 * V8's debugger interrupts JavaScript wherever it is, tells the stack, and goes on at once. Code that blocks outside of
 * JavaScript (a child process that is waited for, say) is not seen in time; then there is no stack.
 */
import inspector from "node:inspector";

const PATIENCE_MS = 500;
const MOST_FRAMES = 12;

interface Frame {
  functionName: string;
  url: string;
  location: { lineNumber: number; columnNumber?: number | undefined };
}

/** Give the main thread's stack as text, innermost first; "" if it can't be had. */
export async function mainThreadStack(): Promise<string> {
  if (inspector.url() !== undefined) return ""; // somebody debugs: leave their session alone
  const session = new inspector.Session();
  try {
    session.connectToMainThread();
  } catch {
    return "";
  }
  try {
    return await new Promise<string>((resolve) => {
      const timer = setTimeout(resolve, PATIENCE_MS, "");
      session.on("Debugger.paused", ({ params }) => {
        clearTimeout(timer);
        session.post("Debugger.resume");
        resolve(text(params.callFrames));
      });
      session.post("Debugger.enable", () => {
        session.post("Debugger.pause");
      });
    });
  } finally {
    session.disconnect(); // which lets a paused thread go on too
  }
}

function text(frames: readonly Frame[]): string {
  return frames
    .slice(0, MOST_FRAMES)
    .map(({ functionName, url, location }) => {
      const place = `${url}:${String(location.lineNumber + 1)}:${String((location.columnNumber ?? 0) + 1)}`;
      return `    at ${functionName || "<anonymous>"} (${place})`;
    })
    .join("\n");
}
