/** What a step sees of the store in which its body runs: nothing, wherever it runs. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { System } from "../support/system.js";

let system: System;

beforeAll(async () => {
  system = await System.start();
  await system.startWorkers(1, {}, "contexts");
});

afterAll(async () => {
  await system.destroy(false);
});

test("a step sees nothing of its body's AsyncLocalStorage, and each body begins without", async () => {
  for (let round = 0; round < 2; round++) {
    expect(await system.run("looks")).toEqual({
      beginsWith: "nobody",
      lone: "nobody",
      later: "nobody",
      together: ["nobody", "nobody", "nobody"],
      body: "acme",
    });
  }
});
