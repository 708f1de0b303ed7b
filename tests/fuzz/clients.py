"""Clients that call every method of every service with anything.

Methods come from the descriptors of the contract and of the other services that the executor serves, so that a new one
is fuzzed the day that it is added.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import stepwire_proto.v1
from tests.executor.peer import bearer
from tests.fuzz.alive import Alive
from tests.fuzz.attack import BROKEN, Attack
from tests.fuzz.grammar import Grammar

TIMEOUTS = (0.01, 0.1, 0.3, 1.0)
"""Seconds for which a call may last; those that watch or wait last as long."""


def methods() -> list[MethodDescriptor]:
    """Give every method that the executor serves."""
    names = [module.name for module in pkgutil.iter_modules(stepwire_proto.v1.__path__)]
    contract = [
        importlib.import_module(f"stepwire_proto.v1.{name}").DESCRIPTOR for name in names if name.endswith("_pb2")
    ]
    files = [*contract, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    return [
        method for file in files for service in file.services_by_name.values() for method in service.methods
    ]  # fmt: skip


def path(method: MethodDescriptor) -> str:
    """Give the path by which gRPC calls a method."""
    return f"/{method.containing_service.full_name}/{method.name}"


class FuzzingClient:
    """Calls what it likes, with one of some tokens, or with none."""

    def __init__(
        self, attack: Attack, channel: grpc.aio.Channel, number: int, tokens: Sequence[str], alive: Alive
    ) -> None:
        self.attack = attack
        self.name = f"client-{number}"
        self.alive = alive
        self._tokens = tokens
        self._dice = attack.dice("client", number)
        self._grammar = Grammar(self._dice, self.alive)
        self._methods = methods()
        self._calls: dict[str, Any] = {path(each): channel.stream_stream(path(each)) for each in self._methods}

    async def run(self) -> None:
        """Make one call after the other until the attack is over."""
        while not self.attack.over:
            await self._call(self._dice.choice(self._methods))

    async def _call(self, method: MethodDescriptor) -> None:
        dice = self._dice
        token = dice.choice(self._tokens)
        # Everything is called as if it were a stream both ways: on the wire they are the same.
        count = dice.choice((0, 1, 2, 5)) if method.client_streaming else dice.choice((1,) * 18 + (0, 2))
        call = self._calls[path(method)](metadata=bearer(token), timeout=dice.choice(TIMEOUTS))
        answers = message_factory.GetMessageClass(method.output_type)
        reader = asyncio.create_task(self._read(call, method, answers))
        try:
            for _ in range(count):
                await self.attack.pace()
                data, what = self._request(method)
                kind = message_factory.GetMessageClass(method.input_type)
                self.attack.sent(f"{self.name} {path(method)}", kind, data, what)
                await call.write(data)
            await call.done_writing()
        except BROKEN:
            pass  # the reader tells how it ended
        if method.server_streaming and dice.random() < 0.7:
            await asyncio.sleep(dice.choice((0.0, 0.02)))
            call.cancel()
        await reader

    def _request(self, method: MethodDescriptor) -> tuple[bytes, str]:
        dice, what = self._dice, method.full_name
        known = self.alive.message(dice, method.input_type.full_name)
        request = self._grammar.of(method.input_type)
        if known is not None and dice.random() < 0.3:
            request.CopyFrom(known)
            self._grammar.mutate(request)
        elif request.ByteSize() < 2_000 and dice.random() < 0.2:
            self.alive.learn(request)
        data = request.SerializeToString()
        if dice.random() < 0.05:
            return self._grammar.damage(data), f"{what} damaged"
        return data, what

    async def _read(self, call: Any, method: MethodDescriptor, answers: type[Message]) -> None:
        def take(data: bytes) -> None:
            self.attack.heard[method.output_type.name] += 1
            self.alive.learn(answers.FromString(data))

        try:
            await self.attack.read(call, take, "call", path(method))
        except DecodeError:
            self.attack.found(f"{path(method)} has answered with what is no {answers.DESCRIPTOR.full_name}")
            call.cancel()
