"""What load.py does, with gRPC: grpc_load.py ADDRESS PORT HOST REQUESTS RATE. Every fourth call is a stream of three messages."""

import asyncio
import collections
import json
import sys
import time

import grpc

ADDRESS, PORT, HOST, REQUESTS, RATE = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
told, pods, failures, seen = collections.Counter(), collections.Counter(), [], collections.Counter()


async def one(number, get, watch):
    try:
        if number % 4:
            told_by = await get(b"", timeout=15)
        else:
            messages = [message async for message in watch(b"", timeout=15)]
            if len(messages) != 3:
                raise EOFError(f"{len(messages)} of 3 messages")
            told_by = messages[0]
    except (grpc.aio.AioRpcError, EOFError) as error:
        status = error.code().name if isinstance(error, grpc.RpcError) else "INCOMPLETE"
        told[status] += 1
        failures.append([number, status, str(error)[:200]])
        return
    pod, header = told_by.decode().split()
    told["OK"] += 1
    pods[pod] += 1
    seen[header] += 1


async def main():
    async with grpc.aio.insecure_channel(f"{ADDRESS}:{PORT}", options=[("grpc.default_authority", HOST), ("grpc.enable_retries", 0)]) as channel:
        get, watch = channel.unary_unary("/shop.Web/Get"), channel.unary_stream("/shop.Web/Watch")
        begun, tasks = time.monotonic(), []
        for number in range(REQUESTS):
            await asyncio.sleep(begun + number / RATE - time.monotonic())
            tasks.append(asyncio.create_task(one(number, get, watch)))
        await asyncio.gather(*tasks)
    failed = sum(count for status, count in told.items() if status != "OK")
    print(json.dumps({"sent": len(tasks), "failed": failed, "statuses": told, "pods": pods, "tracks": {}, "steering_header_seen": seen["yes"], "failures": failures[:5]}))


asyncio.run(main())
