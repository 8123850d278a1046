"""What schemathesis cannot be told by its configuration: where a followed log ends, and to sum up the answers."""

import atexit
from collections import Counter, defaultdict

import schemathesis
import schemathesis.transport.requests as transport

answers = defaultdict(Counter)
is_event_stream = transport.is_event_stream

# A stream of events is read for as long as the request may take, and what came is its body. So is a log.
transport.is_event_stream = lambda kind: is_event_stream(kind) or (kind or "").startswith("text/plain")


def whole(value):
    """1.0 as 1: to JSON Schema both are integers, and no client writes the one."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


@schemathesis.hook
def map_body(context, body):
    return whole(body)


@schemathesis.hook
def after_call(context, case, response):
    answers[case.operation.label][response.status_code] += 1


@atexit.register
def sum_up():
    for operation in sorted(answers):
        counts = sorted(answers[operation].items())
        print(f"{operation:40}", *(f"{status}: {count:<5}" for status, count in counts))
