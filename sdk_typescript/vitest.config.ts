import { defineConfig } from "vitest/config";

// Tests start real processes, on machines that may be busy with others.
export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    globalSetup: "tests/support/guard.ts",
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
});
