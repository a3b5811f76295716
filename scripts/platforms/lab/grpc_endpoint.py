"""A pod's application that speaks gRPC: grpc_endpoint.py NAME MILLISECONDS|unavailable answers after so long, or at once that it is
unavailable. A call gets one message, a stream three: each says where it came out and whether the steering header was seen."""

import sys
import time
from concurrent import futures

import grpc

NAME, HOW = sys.argv[1], sys.argv[2]


def answer(context):
    if HOW == "unavailable":
        context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
    time.sleep(float(HOW) / 1000)
    seen = any(key == "x-evenkeel-endpoint" for key, _ in context.invocation_metadata())
    return f"{NAME} {'yes' if seen else 'no'}".encode()


def stream(_, context):
    for _ in range(3):
        yield answer(context)


METHODS = {
    "Get": grpc.unary_unary_rpc_method_handler(lambda _, context: answer(context)),
    "Watch": grpc.unary_stream_rpc_method_handler(stream),
}

server = grpc.server(futures.ThreadPoolExecutor(50))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Web", METHODS)])
server.add_insecure_port("0.0.0.0:8080")
server.start()
server.wait_for_termination()
