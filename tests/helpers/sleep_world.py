"""A simulated environment for a SleepPolicy, with a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgjobq.postgres.sleep import Action, Ask, Call, Look, Pause, SleepPolicy, Tell

POLL = 30.0


@dataclass
class World:
    """Answers every action of a policy, and logs it with its time. Time passes only in pauses."""

    claim: tuple[int, int, str] = (0, 1, "")
    open: tuple[str, ...] = ()
    pollers: tuple[int, ...] = ()
    due: float | None = None  # the time at which the next scheduled job falls due
    line: int = 0
    on_watch: bool = True
    new: bool = False  # the next Tell changes the registration
    refused: bool = False
    now: float = 1000.0
    policy: SleepPolicy = field(default_factory=lambda: SleepPolicy(POLL))
    log: list[tuple[float, Action]] = field(default_factory=list)

    def do(self, action: Action) -> None:
        """Perform one action."""
        self.log.append((self.now, action))
        match action:
            case Look():
                self.policy.looked()
                self.all(self.policy.claimed(self.now, *self.claim))
            case Tell() if self.refused:
                self.policy.refused(self.now)
            case Tell():
                new, self.new = self.new, False
                self.policy.told(self.now, action, None if new else self.open, self.pollers, self.on_watch)
            case Ask("open"):
                self.policy.still_open(self.now, self.open)
            case Ask("line"):
                self.all(self.policy.line(self.now, self.line))
            case Ask():
                self.policy.due(self.now, None if self.due is None else self.due - self.now)
            case Pause(seconds):
                self.now += seconds
                self.policy.passed(self.now)
            case Call():
                pass

    def all(self, actions: list[Action]) -> None:
        """Perform all actions."""
        for action in actions:
            self.do(action)

    def run(self, seconds: float) -> list[Action]:
        """Let the policy act for this time, and return its actions. The last pause is cut short."""
        end, first, still = self.now + seconds, len(self.log), 0
        while True:
            action = self.policy.next(self.now)
            if isinstance(action, Pause) and self.now + action.seconds > end:
                self.log.append((self.now, action))
                self.now = end
                return [done for _, done in self.log[first:]]
            before = self.now
            self.do(action)
            still = 0 if self.now > before else still + 1
            assert still < 20, f"spins: {self.log[-20:]}"

    def looks(self, since: float) -> list[float]:
        """Return the times of its claims, in seconds after `since`."""
        return [round(at - since, 3) for at, action in self.log if isinstance(action, Look) and at >= since]
