"""RPC.List, RPC.Describe, RPC.Ping: what the device says of its own methods.

Names, arguments and errors are those of mongoose-os-libs/rpc-common, `mg_rpc.c`.
"""

from rpc_shim.arguments import Arguments, text
from rpc_shim.dispatch import NOT_FOUND, Call, Dispatcher, RpcError
from rpc_shim.frame import JsonValue

_NAME = text("name", required=True)


def register_rpc_service(dispatcher: Dispatcher) -> None:
    """Offer the three methods on `dispatcher`, which they describe."""

    def list_methods(_call: Call) -> JsonValue:
        return [method.name for method in dispatcher.methods]

    def describe_method(call: Call) -> JsonValue:
        name = call.arguments.require(_NAME)
        method = dispatcher.method(name)
        if method is None:
            raise RpcError(NOT_FOUND, "name not found: RPC.List names all methods")
        return {"name": method.name, "args_fmt": method.arguments.format}

    def ping(call: Call) -> JsonValue:
        return {"channel_info": call.channel.info}

    dispatcher.register("RPC.List", list_methods)
    dispatcher.register("RPC.Describe", describe_method, Arguments(_NAME))
    dispatcher.register("RPC.Ping", ping)
