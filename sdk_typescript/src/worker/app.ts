/** What a worker needs of an app. */
import type { Stepwire } from "../app.js";

/** An app that a worker can serve: a `Stepwire` of any events. */
export type App = Pick<Stepwire, "id" | "version" | "codec" | "functions" | "tasks">;
