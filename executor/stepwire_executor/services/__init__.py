"""The gRPC services for clients. They check form, ask the engine or the store, and write answers."""
