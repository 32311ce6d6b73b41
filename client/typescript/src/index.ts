/** Client of Pointsman, an LLM router that runs as a gRPC microservice. */

export { status } from "@grpc/grpc-js";
export * from "./chat.js";
export * from "./client.js";
export { PointsmanError } from "./errors.js";
export * from "./generated/pointsman/v1/chat.js";
export * from "./generated/pointsman/v1/error_reason.js";
export * from "./generated/pointsman/v1/router_service.js";
export * from "./generated/pointsman/v1/routing.js";
