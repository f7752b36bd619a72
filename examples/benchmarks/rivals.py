"""A peer's training, scoring and sampling, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import side_by_side as side
import torch
from peers import Peer
from torch import Tensor

SEED = 0


class Rival:
    """A peer in training on rows x: steps of Adam on random batches; it scores and samples in pieces.

    Parameters
    ----------
    peer : Peer
    x : (n, ...) float32
    batch : int
    learning_rate : float
    pieces : ints, the sizes of a batch among which the fastest is taken
    """

    def __init__(self, peer: Peer, x: Tensor, batch: int, learning_rate: float, pieces: Sequence[int]) -> None:
        self.peer, self.x, self.batch, self.candidates = peer, x, batch, pieces
        self.optimizer = torch.optim.Adam(peer.parameters(), lr=learning_rate)
        self.generator = torch.Generator().manual_seed(SEED)
        self.pieces = {"scoring": pieces[0], "sampling": pieces[0]}

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats of rows."""
        return self.peer.log_prob(x)

    def drawn(self, n: int) -> Tensor:
        """Draw rows at once."""
        return self.peer.sample(n)

    def train(self, n_steps: int) -> None:
        """Take some steps."""
        self.peer.train()
        for _ in range(n_steps):
            self.step_on(self.x[torch.randint(len(self.x), (self.batch,), generator=self.generator)])

    def step_on(self, x: Tensor) -> None:
        """Take a step."""
        loss = -self.log_prob(x).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """Nats of rows, in pieces."""
        self.peer.eval()
        return torch.cat([self.log_prob(piece) for piece in x.split(self.pieces["scoring"])])

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draw rows, in pieces."""
        self.peer.eval()
        piece = self.pieces["sampling"]
        return torch.cat([self.drawn(min(piece, n - i)) for i in range(0, n, piece)])

    def choose_piece(self, what: str, work: Callable[[], object]) -> None:
        """Take the batch in which it scores or samples fastest."""
        seconds = {}
        for piece in self.candidates:
            self.pieces[what] = piece
            work()
            seconds[piece] = min(side.seconds_of(work) for _ in range(2))
        self.pieces[what] = min(seconds, key=seconds.__getitem__)


def score_and_sample(
    ours: dict[str, Callable[[], object]],
    rivals: dict[str, Rival],
    x: Tensor,
    n_sampled: int,
    n_rounds: int,
) -> dict[str, dict]:
    """Compare scoring of rows x and sampling, each rival in its own batch; ours says which of the two are wanted."""
    found = {}
    for what, own in ours.items():
        works: dict[str, Callable[[], object]] = {}
        for name, rival in rivals.items():
            works[name] = _work(rival, what, x, n_sampled)
            rival.choose_piece(what, works[name])
        n = len(x) if what == "scoring" else n_sampled
        found[what] = side.compared(side.in_turn({side.OURS: own, **works}, n_rounds), n)
        found[what]["batches"] = {name: rival.pieces[what] for name, rival in rivals.items()}
    return found


def _work(rival: Rival, what: str, x: Tensor, n_sampled: int) -> Callable[[], object]:
    return (lambda: rival.score(x)) if what == "scoring" else (lambda: rival.sample(n_sampled))
