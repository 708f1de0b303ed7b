/** gRPC, imported here and nowhere else. */
import { forgetRequire } from "./builtins.js";

export * from "@grpc/grpc-js";

forgetRequire();
