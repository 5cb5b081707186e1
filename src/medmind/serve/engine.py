"""One thread owns a model: requests join and leave its batch between steps, wait their turn, and are given up at once.

A thread, because a step blocks; one, because llama.cpp allows no more. All that asyncio sees of it is a Ticket.
"""

import asyncio
import itertools
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from medmind.infer.decoder import Decoder, End, Judged, Step, Work, end_of

ATTEMPTS = 3
"""How often in a row a broken decoder is opened again before the engine gives up."""


class EngineBusy(Exception):
    """The queue is full; `seconds` is a guess at when it will not be."""

    def __init__(self, seconds: int) -> None:
        super().__init__("the queue is full")
        self.seconds = seconds


class EngineBroken(Exception):
    """The model failed at work, and is opened again."""


class EngineGone(EngineBroken):
    """It failed too often, or the server is shutting down: nothing more comes of it."""


class WorkLost(Exception):
    """This one text came to nothing; the model is well. In words that may be told to anyone."""


@dataclass(frozen=True)
class Update:
    """What one step brought: tokens of the prompt, a token or a text of the reply, the end. An error ends it too."""

    read: Sequence[Judged] = ()
    new: Judged | None = None
    text: str = ""
    end: End | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Ticket:
    """A work handed in; `request` groups the works of one request, so that none of them takes every slot."""

    work: Work
    request: int
    loop: asyncio.AbstractEventLoop
    updates: "asyncio.Queue[Update]" = field(default_factory=asyncio.Queue)
    written: int = 0
    left: bool = False
    ended: bool = False
    """Whether it was left because it had said all that was wanted."""
    began: float = 0.0


@dataclass(frozen=True)
class Errand:
    """A text whose place in the model's space is wanted."""

    ids: Sequence[int]
    voice: str
    future: "asyncio.Future[list[float]]"
    loop: asyncio.AbstractEventLoop


class Engine:
    """`open_decoder` is called in the engine's own thread, and again after a failure."""

    def __init__(self, open_decoder: Callable[[], Decoder], queue: int) -> None:
        self._open, self._queue = open_decoder, queue
        self._wake = threading.Condition()
        self._waiting: list[Ticket] = []
        self._active: dict[int, Ticket] = {}
        self._errands: list[Errand] = []
        self._requests = itertools.count()
        self._ready = threading.Event()
        self._closing = False
        self._seconds = 1.0
        self.failure = ""
        self._error: Exception | None = None
        self.counts: Counter[str] = Counter()
        self.last_step, self.wrote_at = time.monotonic(), -math.inf
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Until the model is open; what it is stands in the attributes of a Decoder, which are its own too."""
        self._ready.wait()
        if self._error:
            raise self._error

    def submit(self, works: Sequence[Work]) -> list[Ticket]:
        """Hands in all works of one request, or none."""
        loop, request = asyncio.get_running_loop(), next(self._requests)
        tickets = [Ticket(work, request, loop) for work in works]
        with self._wake:
            if self.failure:
                raise EngineGone(self.failure)
            requests = {ticket.request for ticket in (*self._waiting, *self._active.values())}
            if len(requests) >= self.slots + self._queue:
                self.counts["refused"] += 1
                raise EngineBusy(max(1, round(self._seconds * len(requests) / self.slots)))
            self._waiting += tickets
            self.counts["requests"] += 1
            self._wake.notify()
        return tickets

    def leave(self, tickets: Sequence[Ticket], ended: bool = False) -> None:
        """The slots are free at the next step, and places in the queue at once; of what has ended nothing is left."""
        with self._wake:
            for ticket in tickets:
                ticket.left, ticket.ended = True, ticket.ended or ended
            self._waiting = [ticket for ticket in self._waiting if not ticket.left]
            self._wake.notify()

    async def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        loop = asyncio.get_running_loop()
        errand = Errand(ids, voice, loop.create_future(), loop)
        with self._wake:
            if self.failure:
                raise EngineGone(self.failure)
            self._errands = [one for one in self._errands if not one.future.done()]
            if len(self._errands) > self._queue:
                self.counts["refused"] += 1
                raise EngineBusy(max(1, round(self._seconds)))
            self._errands.append(errand)
            self._wake.notify()
        return await errand.future

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def busy(self) -> int:
        return len(self._active)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def _run(self) -> None:
        attempts = 0
        while not self._closing and attempts < ATTEMPTS:
            steps = self.counts["steps"]
            try:
                self._serve()
            except Exception as error:  # whatever a model's library raises: those who wait must hear of it
                if not self._ready.is_set():
                    self._error = error  # kept no longer: it holds the decoder that failed, and all its memory
                attempts = 1 if self.counts["steps"] > steps + 1 else attempts + 1
                attempts = attempts if self._ready.is_set() else ATTEMPTS
                self._fail(f"{type(error).__name__}: {error}".splitlines()[0], last=attempts == ATTEMPTS)
        if self._closing:
            self._fail("the server is shutting down", last=True)
        self._ready.set()

    def _serve(self) -> None:
        decoder = self._open()
        self.name, self.dtype, self.context = decoder.name, decoder.dtype, decoder.context
        self.slots, self.takes_ids, self.version = decoder.slots, decoder.takes_ids, decoder.version
        self.can_embed, self.can_judge = decoder.can_embed, decoder.can_judge
        self._ready.set()
        while self._turn(decoder):
            pass

    def _turn(self, decoder: Decoder) -> bool:
        """One step, with whoever came and without whoever left since the last."""
        with self._wake:
            while not (self._closing or self._waiting or self._active or self._errands):
                self._wake.wait()
            if self._closing:
                return False
            errand = self._errands[0] if self._errands else None
            self._release(decoder)
            if not self._active:
                self.last_step = time.monotonic()
            self._admit(decoder)
        if errand:
            self._run_errand(decoder, errand)
        steps = decoder.step()
        if steps:
            self.last_step = time.monotonic()
            self.counts["steps"] += 1
        self.counts["busy_slots"] += len(steps)
        self._hand_out(decoder, steps)
        return True

    def _run_errand(self, decoder: Decoder, errand: Errand) -> None:
        """One a turn, replies go on beside it."""
        if not errand.future.done():
            found: list[float] | Exception
            try:
                found = decoder.embed(errand.ids, errand.voice)
            except Exception as error:  # of this text alone: the replies beside it go on
                found = WorkLost(f"the model could make no vector of this text ({type(error).__name__})")
            tell(errand.loop, settle, errand.future, found)
        with self._wake:
            self._errands = [one for one in self._errands if one is not errand]

    def _release(self, decoder: Decoder) -> None:
        for slot, ticket in list(self._active.items()):
            if ticket.left:
                decoder.drop(slot)
                del self._active[slot]
                self.counts["finished" if ticket.ended else "cancelled"] += 1

    def _admit(self, decoder: Decoder) -> None:
        """Free slots go to the request that has fewest, the first come among equals."""
        free = [slot for slot in range(decoder.slots) if slot not in self._active]
        for slot in free[: len(self._waiting)]:
            served = Counter(ticket.request for ticket in self._active.values())
            ticket = min(self._waiting, key=lambda one: served[one.request])
            self._waiting.remove(ticket)
            ticket.began = time.monotonic()
            self._active[slot] = ticket
            decoder.begin(slot, ticket.work)
            self.counts["prompt_tokens"] += len(ticket.work.prompt)

    def _hand_out(self, decoder: Decoder, steps: Sequence[Step]) -> None:
        """Everyone's news in one call per event loop: waking it is the dear part."""
        news: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Update]]] = defaultdict(list)
        with self._wake:
            for step in steps:
                ticket = self._active[step.slot]
                ticket.written += step.new is not None
                end = end_of(ticket.work, ticket.written, step)
                lost = WorkLost(step.fault) if step.fault else None
                if step.new or step.text:
                    self.counts["new_tokens"] += 1
                    self.wrote_at = self.last_step
                if end or lost:
                    decoder.drop(step.slot)
                    del self._active[step.slot]
                    self.counts["failed" if lost else "finished"] += 1
                    self._seconds = 0.9 * self._seconds + 0.1 * (time.monotonic() - ticket.began)
                if step.read or step.new or step.text or end or lost:
                    news[ticket.loop].append((ticket, Update(step.read, step.new, step.text, end, lost)))
        for loop, updates in news.items():
            tell(loop, deliver, updates)

    def _fail(self, failure: str, last: bool) -> None:
        """Everyone underway is told; the queue waits for the next attempt, unless this was the last."""
        with self._wake:
            if last:
                self.failure = failure
            told = [*self._active.values(), *(self._waiting if last else ())]
            errands, self._errands = self._errands, []
            self._active.clear()
            if last:
                self._waiting.clear()
            self.counts["failed"] += len(told)
        broken = EngineGone if last else EngineBroken
        for ticket in told:
            tell(ticket.loop, deliver, [(ticket, Update(error=broken(failure)))])
        for errand in errands:
            tell(errand.loop, settle, errand.future, broken(failure))


def tell(loop: asyncio.AbstractEventLoop, *call: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]


def deliver(updates: Sequence[tuple[Ticket, Update]]) -> None:
    for ticket, update in updates:
        ticket.updates.put_nowait(update)


def settle(future: "asyncio.Future[list[float]]", result: list[float] | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


async def follow(ticket: Ticket) -> AsyncIterator[Update]:
    """Until its end; an error is raised."""
    while True:
        update = await ticket.updates.get()
        if update.error:
            raise update.error
        yield update
        if update.end:
            return
