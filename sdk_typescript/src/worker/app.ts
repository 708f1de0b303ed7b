/** What a worker needs of an app, whatever events that knows. */
import type { Stepwire } from "../app.js";

export type App = Pick<Stepwire, "id" | "version" | "codec" | "functions" | "tasks">;
