"""Count what operations ask of a GPU: kernels, bytes of memory that they move, and floating-point operations.

A :class:`Recorder` notes the operations that PyTorch dispatches. Each is one kernel in eager mode.
:func:`joined_kernels` says what is left of them where a compiler joins elementwise operations and reductions.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
NO_KERNELS = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}
FIRST_FACTOR = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.addmm_: 1, aten.baddbmm: 1}  # its place in the arguments
SHAPED_LIKE = {
    *(aten.zeros_like, aten.ones_like, aten.full_like, aten.rand_like),
    *(aten.new_zeros, aten.new_ones, aten.new_full),
}  # of their argument they read the shape alone
OVERWRITING = {aten.copy_, aten.fill_, aten.zero_}  # these do not read what they overwrite
LOOK_UPS = {aten.gather, aten.embedding, aten.index, aten.index_select}  # they read what they return, not all they get
SCATTERS = {aten.scatter_add_, aten.embedding_dense_backward, aten.index_put_}  # no compiler joins these to others
ATTENTION_PRODUCTS = {"forward": 2, "backward": 5}  # the backward pass forms the scores again (Dao et al. 2022)
WIDE = 256  # the least dimension of a product that fills a GPU's tiles well; the number is ours
ATTENTION_WIDTH = 32  # flash attention fills a head with zeros to a multiple of this


class Kernel(NamedTuple):
    """What one kernel does.

    The kind is product, narrow product, float32 product, attention, or elementwise for all else.
    """

    kind: str
    bytes: float
    flops: float = 0.0


Kernels = Counter[Kernel]  # how often each kernel runs, which may be a fraction


Value = tuple[int, int]  # a storage and its version: each write makes another


class Access(NamedTuple):
    """A read or a write: which value of which storage, through which view, and its size in bytes."""

    storage: int
    version: int
    view: tuple[Any, ...]
    bytes: int
    at_most: int  # the bytes of the whole storage

    @property
    def value(self) -> Value:
        """Return what is read or written, whatever the view."""
        return self.storage, self.version


class Operation(NamedTuple):
    """An operation that launches a kernel."""

    kind: str
    flops: int
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    joins: bool  # whether a compiler joins it with its neighbours

    def kernel(self) -> Kernel:
        """Return the operation as a kernel of its own: it reads each input once and writes each output once."""
        return Kernel(self.kind, _distinct_bytes({*self.reads, *self.writes}), self.flops)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that notes every operation that launches a kernel."""

    def __init__(self) -> None:
        """Begin without operations."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._storages: dict[int, Any] = {}  # kept alive, so that no two share an address
        self._versions: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.namespace == "aten" and (outputs or func._schema.is_mutable):
            self._note(func, args, kwargs, outputs)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        mutated, read = _operands(func, args, kwargs)
        inside = {_storage(tensor) for tensor in [*mutated, *read]}
        written = [*mutated, *(tensor for tensor in outputs if _storage(tensor) not in inside)]
        if func.overloadpacket in NO_KERNELS or not written:  # a view makes nothing
            return
        reads = [self._access(tensor) for tensor in _really_read(func, read, mutated)]
        for tensor in written:
            self._versions[_storage(tensor)] += 1
        writes = [self._access(tensor) for tensor in written]
        kind, flops = _kind_and_flops(func, args)
        joins = kind == "elementwise" and func.overloadpacket not in SCATTERS
        self.operations.append(Operation(kind, flops, *_really_moved(func, reads, writes), joins))

    def _access(self, tensor: Tensor) -> Access:
        address = _storage(tensor)
        self._storages[address] = tensor.untyped_storage()
        view = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
        numbers = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
        size = numbers * tensor.element_size()
        return Access(address, self._versions[address], view, size, tensor.untyped_storage().nbytes())

    def kept(self) -> set[Value]:
        """Return the values that something still holds, and let go of the others; the last call of a recorder."""
        watched = {address: weakref.ref(storage) for address, storage in self._storages.items()}
        self._storages.clear()
        return {(address, self._versions[address]) for address, storage in watched.items() if storage() is not None}


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _operands(func: Any, args: Any, kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors that ``func`` writes to among its arguments, and those that it only reads."""
    mutated: list[Tensor] = []
    read: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        (mutated if written else read).extend(leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))
    return mutated, read


def _really_read(func: Any, read: list[Tensor], mutated: list[Tensor]) -> list[Tensor]:
    """Return the tensors whose numbers ``func`` reads, of those that it is given and those that it writes to."""
    overwrites = func.overloadpacket in OVERWRITING or any(argument.is_out for argument in func._schema.arguments)
    return [*([] if func.overloadpacket in SHAPED_LIKE else read), *([] if overwrites else mutated)]


def _really_moved(
    func: Any, reads: list[Access], writes: list[Access]
) -> tuple[tuple[Access, ...], tuple[Access, ...]]:
    """Return ``reads`` and ``writes`` with the bytes that ``func`` moves, where it moves a part of a tensor."""
    if func.overloadpacket in LOOK_UPS:
        reads[0] = reads[0]._replace(bytes=writes[0].bytes)
    if func.overloadpacket is aten.scatter_add_:  # as many numbers of its target as its source has
        _, source, target = reads
        reads[2], writes[0] = (access._replace(bytes=source.bytes) for access in (target, writes[0]))
    return tuple(reads), tuple(writes)


def _kind_and_flops(func: Any, args: Any) -> tuple[str, int]:
    """Return the kind of a kernel and its floating-point operations, which count for products and attention alone.

    A product with a row or column is a sum of products, and moves more than it computes. Attention is causal, so half
    of all pairs of tokens count, at the width to which flash attention fills a head.
    """
    name, first = func.overloadpacket.__name__, FIRST_FACTOR.get(func.overloadpacket)
    if first is not None:
        a, b = args[first : first + 2]
        smallest = min(*a.shape[-2:], b.shape[-1])
        if smallest == 1:
            return "elementwise", 0
        kind = "float32 product" if a.dtype.itemsize >= 4 else "product" if smallest >= WIDE else "narrow product"
        return kind, 2 * a.numel() * b.shape[-1]
    if "scaled_dot_product" in name:
        backward = name.endswith("backward")
        batch, heads, length, width = args[1 if backward else 0].shape
        filled = -(-width // ATTENTION_WIDTH) * ATTENTION_WIDTH
        products = ATTENTION_PRODUCTS["backward" if backward else "forward"]
        return "attention", products * batch * heads * length * length * filled
    return "elementwise", 0


def kernels(operations: Iterable[Operation]) -> Kernels:
    """Return the kernels of ``operations`` in eager mode: one each."""
    return Counter(operation.kernel() for operation in operations)


def joined_kernels(operations: list[Operation], kept: set[Value]) -> Kernels:
    """Return the kernels that are left of ``operations`` where a compiler joins all that it can.

    An elementwise operation or reduction joins the kernel whose result it reads, unless another kernel must run between
    the two. A kernel moves the distinct inputs that it gets from outside, and the results that are used outside: by
    another kernel, or after all ``operations`` because they are ``kept``. A real compiler joins less, so the bytes are
    a lower bound, but for what a compiler computes again instead of keeping it.
    """
    groups = _Groups(operations)
    for place, operation in enumerate(operations):
        for source in sorted(groups.sources[place], reverse=True):
            if operation.joins and operations[source].joins:
                groups.join(source, place)
    found = (_joined(*parts, kept) for parts in groups.parts())
    return Counter(kernel for kernel in found if kernel.bytes)


class _Groups:
    """Operations in groups, each of which may run as one kernel."""

    def __init__(self, operations: list[Operation]) -> None:
        """Put each operation into a group of its own."""
        self._operations = operations
        makers = {write.value: place for place, operation in enumerate(operations) for write in operation.writes}
        self.sources = [{makers[r.value] for r in operation.reads if r.value in makers} for operation in operations]
        self._group = list(range(len(operations)))
        self._members = {place: [place] for place in self._group}

    def join(self, one: int, other: int) -> None:
        """Join the groups of two operations, unless they are one or another group must run between them."""
        stays, goes = self._group[one], self._group[other]
        if stays == goes or self._reaches(stays, goes) or self._reaches(goes, stays):
            return
        for member in self._members[goes]:
            self._group[member] = stays
        self._members[stays] += self._members.pop(goes)

    def _sources_of(self, group: int) -> set[int]:
        return {self._group[source] for member in self._members[group] for source in self.sources[member]} - {group}

    def _reaches(self, above: int, below: int) -> bool:
        """Tell whether ``below`` needs results of a third group that needs results of ``above``."""
        waiting = self._sources_of(below) - {above}
        seen: set[int] = set()
        while waiting:
            group = waiting.pop()
            seen.add(group)
            waiting |= self._sources_of(group) - seen
            if above in waiting:
                return True
        return False

    def parts(self) -> Iterator[tuple[list[Operation], set[Value]]]:
        """Yield the operations of each group, with the values that other groups read."""
        for members in self._members.values():
            others = set(range(len(self._operations))) - set(members)
            read = {read.value for place in others for read in self._operations[place].reads}
            yield [self._operations[place] for place in sorted(members)], read


def _joined(operations: list[Operation], read_outside: set[Value], kept: set[Value]) -> Kernel:
    """Return the one kernel that runs ``operations``."""
    made = {write.value for operation in operations for write in operation.writes}
    read = {read for operation in operations for read in operation.reads if read.value not in made}
    written = {write for operation in operations for write in operation.writes if write.value in read_outside | kept}
    return Kernel(operations[0].kind, _distinct_bytes(read | written), operations[0].flops)


def _distinct_bytes(accesses: set[Access]) -> int:
    """Return the bytes of ``accesses``; several views of one value move no more than all of it."""
    total: Counter[tuple[Value, int]] = Counter()
    for access in accesses:
        total[access.value, access.at_most] += access.bytes
    return sum(min(size, at_most) for (_, at_most), size in total.items())
