"""What an operator should know first of a server's document: sentences, the severe ones first."""

from collections.abc import Iterator

from fastasgi.admin.document import Certificate, Document, Problem, Queue, Worker

ERROR_SHARE = 0.01  # of responses
FULL_SHARE = 0.5  # of an accept queue
DESCRIPTORS_SHARE = 0.8
DAYS_LEFT = 14.0


def problems(document: Document, failed: int, stalled: int, minutes: int) -> list[Problem]:
    """The problems that a document shows.

    failed is the number of workers that have ended unasked in the last minutes, stalled that of stalls.
    """
    found = [
        *_health(document),
        *_traffic(document),
        *(problem for worker in document["workers"] for problem in _of_worker(worker, document)),
        *_past(failed, stalled, minutes),
        *(problem for queue in document["queues"] for problem in _of_queue(queue)),
        *(problem for each in document["certificates"] for problem in _of_certificate(each)),
    ]
    return sorted(found, key=lambda problem: not problem["is_severe"])


def _health(document: Document) -> Iterator[Problem]:
    for name, health in (("live", document["live"]), ("ready", document["ready"])):
        if not health["is_well"]:
            yield _severe(f"Not {name}: {health['reason']}.")
            return
    if not document["totals"]["starts"] and document["server"]["phase"] == "running":
        yield _slight("Nothing is counted: the workers have no memory in common, as the log says.")


def _traffic(document: Document) -> Iterator[Problem]:
    now = document["now"]
    if now["is_shedding"]:
        yield _severe("Overload: new requests are answered 503 until the delay is gone.")
    share = now["error_share"]
    if share is not None and share >= ERROR_SHARE:
        yield _severe(
            f"{share * 100:.1f} % of responses in the last {now['window_s']:.0f} s were errors (5xx)."
        )


def _of_worker(worker: Worker, document: Document) -> Iterator[Problem]:
    name = f"Worker {worker['slot']}"
    if worker["blocked_s"]:
        stands_at = next((each["stands_at"] for each in worker["processes"] if each["stands_at"]), "")
        what = stands_at or "its event loop does not turn"
        yield _severe(f"{name} is blocked for {worker['blocked_s']:.0f} s: {what}.")
    elif worker["state"] == "condemned":
        yield _severe(f"{name} hangs, and is about to be killed.")
    elif worker["state"] == "failed" and document["server"]["phase"] == "running":
        yield _severe(f"{name} has ended unasked, and has no process now.")
    limit = worker["descriptors_limit"]
    if limit and worker["descriptors"] >= DESCRIPTORS_SHARE * limit:
        yield _slight(f"{name} has {worker['descriptors']} of {limit} descriptors open.")


def _past(failed: int, stalled: int, minutes: int) -> Iterator[Problem]:
    if failed:
        ends = "1 worker has" if failed == 1 else f"{failed} workers have"
        yield _slight(f"{ends} ended unasked in the last {minutes} minutes.")
    if stalled:
        times = "once" if stalled == 1 else f"{stalled} times"
        yield _slight(f"Event loops have stalled {times} in the last {minutes} minutes.")


def _of_queue(queue: Queue) -> Iterator[Problem]:
    if queue["limit"] and queue["length"] >= FULL_SHARE * queue["limit"]:
        waiting = f"{queue['length']} connections, of {queue['limit']} that may, wait to be accepted"
        yield Problem(is_severe=queue["length"] >= queue["limit"], text=f"{waiting} at {queue['address']}.")


def _of_certificate(certificate: Certificate) -> Iterator[Problem]:
    names = certificate["names"] or [certificate["file"]]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    name = f"The certificate of {names[0]}{others}"
    days = certificate["days_left"]
    if days <= 0:
        yield _severe(f"{name} has expired.")
    elif days < DAYS_LEFT:
        yield _slight(f"{name} expires in {days:.1f} days.")
    if certificate["error"]:
        yield _slight(f"{name} could not be read again: {certificate['error']}.")


def _severe(text: str) -> Problem:
    return Problem(is_severe=True, text=text)


def _slight(text: str) -> Problem:
    return Problem(is_severe=False, text=text)
