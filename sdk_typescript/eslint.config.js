import eslint from "@eslint/js";
import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

/**
 * What the files of a room must not import: rooms above it, and what speaks to the outside.
 *
 * @param {string[]} files
 * @param {string[]} above
 */
function below(files, above) {
  return { files, rules: { "no-restricted-imports": ["error", { patterns: [{ group: above }] }] } };
}

const OUTSIDE = ["**/gen/**", "**/wire.js", "**/frames.js", "**/client.js", "**/calls.js", "**/channel.js", "@grpc/*"];

export default defineConfig(
  { ignores: ["dist/", "build/", "src/gen/", "bench/*.mjs"] },
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  { languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["eslint.config.js"] } } } },
  below(["src/worker/**"], ["**/client.js", "**/calls.js"]),
  below(["src/body/**"], ["**/worker/**", ...OUTSIDE]),
  below(["src/replay/**"], ["**/worker/**", "**/body/**", "**/app.js", ...OUTSIDE]),
  below(["src/model.ts", "src/attempt.ts"], ["./*"]),
);
