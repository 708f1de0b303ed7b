"""Server reflection under both of its names: newer clients ask for v1, older ones for v1alpha.

The library serves v1alpha only. Both have the same messages, so one servicer answers both. What v1 calls its messages
is derived from the library's own descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

OLD, NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICE_NAMES = (f"{NEW}.ServerReflection", f"{OLD}.ServerReflection")


def enable(service_names: Iterable[str], server: grpc.aio.Server) -> None:
    """Have a server describe its services, and reflection itself, to whoever asks."""
    describe_v1(descriptor_pool.Default())
    servicer = reflection.aio.ReflectionServicer((*service_names, *SERVICE_NAMES))
    for name in SERVICE_NAMES:
        answer = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": answer})
        server.add_generic_rpc_handlers((handler,))


def describe_v1(pool: descriptor_pool.DescriptorPool) -> None:
    """Put v1's file into a pool: that of v1alpha with another package. The same file may be added again."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", NEW
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{OLD}.", f".{NEW}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{OLD}.", f".{NEW}.")
            method.output_type = method.output_type.replace(f".{OLD}.", f".{NEW}.")
    pool.AddSerializedFile(file.SerializeToString())
