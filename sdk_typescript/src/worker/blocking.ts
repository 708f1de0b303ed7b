/**
 * The stack of the main thread, seen from another thread while it is blocked.
 *
 * V8's debugger interrupts JavaScript wherever it is, tells the stack, and goes on at once. Code that blocks outside of
 * JavaScript (a child process that is waited for, say) is not seen in time; then there is no stack.
 */
import inspector from "node:inspector";
import { FOLDER } from "../place.js";

const PATIENCE_MS = 500;
const BREAK_OFF_MS = 2_000;
const MOST_FRAMES = 12;
const MOST_LOOKS = 100;

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

/**
 * Pause the main thread, and if `isStill` then, tell `found` the user's line that it is at, and end what it does; says
 * whether that was done.
 *
 * V8 unwinds the running code and forgets the microtasks that wait; no code can catch that. Where AsyncLocalStorage is
 * used, Node takes the rest of it for damage, and ends the process.
 */
export async function breakOffMainThread(isStill: () => boolean, found: (place: string) => void): Promise<boolean> {
  const session = new inspector.Session();
  const files = new Map<string, string>();
  let looks = 0;
  let again = false;
  try {
    session.connectToMainThread();
    return await new Promise<boolean>((resolve) => {
      const timer = setTimeout(resolve, BREAK_OFF_MS, false);
      const end = (done: boolean): void => {
        clearTimeout(timer);
        resolve(done);
      };
      const pause = (): void => {
        session.post("Debugger.pause");
      };
      session.on("Debugger.scriptParsed", ({ params }) => files.set(params.scriptId, params.url));
      session.on("Debugger.paused", ({ params }) => {
        const frame = params.callFrames.find(({ location }) => isUsers(files.get(location.scriptId) ?? ""));
        looks += 1;
        again = false;
        if (!isStill()) {
          session.post("Debugger.resume");
          end(false);
        } else if (frame === undefined && looks < MOST_LOOKS) {
          again = true;
          session.post("Debugger.resume"); // between two callbacks, say
        } else {
          found(frame === undefined ? "" : line(frame, files).replace(/^\s*at /, ""));
          session.post("Debugger.resume", { terminateOnResume: true }, () => {
            end(true);
          });
        }
      });
      session.on("Debugger.resumed", () => {
        if (again) setTimeout(pause, 1); // not before: a thread that still stands ignores it
      });
      session.post("Debugger.enable", (closed) => {
        if (closed === null) pause();
      });
    });
  } catch {
    return false;
  } finally {
    session.removeAllListeners();
    session.disconnect();
  }
}

/**
 * Have the main thread run `process.exit()`, wherever its JavaScript is. The process ends, with the exit code that it has
 * set, or 0; this returns only if that has not been so after `patience` milliseconds.
 */
export async function exitFromMainThread(patience: number): Promise<void> {
  const session = new inspector.Session();
  try {
    session.connectToMainThread();
    session.on("Debugger.paused", () => {
      session.post("Runtime.evaluate", { expression: "process.exit()" });
    });
    session.post("Debugger.enable", (closed) => {
      if (closed === null) session.post("Debugger.pause");
    });
    // A thread that does nothing comes to no place where it would pause.
    session.post("Runtime.evaluate", { expression: "0" });
    await new Promise((resolve) => setTimeout(resolve, patience));
  } catch {
    // There is no such debugger here.
  }
}

/** Give the line of the user's code in a stack as `mainThreadStack` gives it; "" if there is none. */
export function usersLine(stack: string): string {
  const lines = stack.split("\n").map((text) => text.replace(/^\s*at /, ""));
  return lines.find((text) => isUsers(/\((.*?)(?::\d+){2}\)$/.exec(text)?.[1] ?? "")) ?? "";
}

/** Whether a file is the user's own: neither Node's, nor an installed package's, nor this package's. */
function isUsers(url: string): boolean {
  if (url === "" || url.startsWith("node:") || url.includes("/node_modules/")) return false;
  const own = FOLDER;
  return own === undefined || !["dist/", "src/"].some((folder) => url.startsWith(`${own}${folder}`));
}

function line({ functionName, location }: inspector.Debugger.CallFrame, files: ReadonlyMap<string, string>): string {
  const at = `${String(location.lineNumber + 1)}:${String((location.columnNumber ?? 0) + 1)}`;
  return `    at ${functionName || "<anonymous>"} (${files.get(location.scriptId) ?? ""}:${at})`;
}
