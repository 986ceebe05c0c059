"""Loads a model and picks the parts of its engine that belong to a device: decoder, KV store, attention, runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from umbel import registry
from umbel.attention.pick import check_attention, load_keeper, pick_attention
from umbel.attention.select.tally import KeyTally
from umbel.config import EngineConfig
from umbel.cost.known import Known
from umbel.cost.live import LivePrice
from umbel.cost.machine import Machine
from umbel.cost.meter import Meter
from umbel.cost.roofline import Price
from umbel.cost.windows import Windows
from umbel.engine.assemble import make_scheduler
from umbel.engine.device import device_of, pick_device
from umbel.engine.flowing import check_flow, open_flow
from umbel.engine.loop import Loop
from umbel.engine.ranks import Ranks
from umbel.engine.shelving import open_shelf
from umbel.engine.step_rule import step_rule
from umbel.engine.watch.watchers import known_watchers
from umbel.errors import CapacityError, UsageError
from umbel.ir.load_count import LoadCount
from umbel.ir.plan import Plan
from umbel.ir.row_techniques import RowTechniques
from umbel.ir.soft_prompt import SoftPrompts
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.kv.states import StateStore
from umbel.kv.store import KVStore
from umbel.linear.base import Weights
from umbel.linear.pick import pick_linear
from umbel.models.adapters.bank import AdapterBank, AdapterLoader, put_adapters
from umbel.models.adapters.modules import adapted_spec
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec, resolve_model
from umbel.models.shards import Shard, build_shard
from umbel.models.sources.find import source_at
from umbel.models.weights import StoredWeights, dummy_weights, pick_dtype
from umbel.plan.for_rows import techniques_of
from umbel.plan.passes.speculate import NOT_BACK
from umbel.plan.planner import make_plan
from umbel.plan.reuse import check_reuse, reuses
from umbel.plan.walk.reading import selected_keys
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.base import Runner
from umbel.runner.flow.base import LayerFlow
from umbel.runner.flow.passing import FlowingRows, LayerTally
from umbel.runner.parallel import ParallelRunner
from umbel.runner.pick import pick_recorded
from umbel.runner.torch_runner import TorchRunner
from umbel.sched.gaps import start_gaps
from umbel.sched.lot import Defaults
from umbel.sched.phases.forget import start_forgetting
from umbel.sched.phases.speculate import Speculate
from umbel.sched.policies.policy import Policy
from umbel.spec.base import MOST, Constant, Drafter, Kept, Setting
from umbel.spec.measured import Measured
from umbel.spec.priced import PricedDepth
from umbel.technique import NONE
from umbel.text.tokenizer import Tokenizer


class Model:
    """A loaded model with what belongs to it: spec, decoder, tokenizer (None when the directory has none), device."""

    decoder: Decoder

    def __init__(
        self,
        config: EngineConfig,
        shard: Shard | None = None,
        *,
        computes: bool = True,
        count: LoadCount | None = None,
    ):
        """`shard` is given to the ranks behind the first, which starts them and whose model plans and runs. The weights
        of one that does not compute are not loaded. Those that are loaded are counted in `count`."""
        self.directory: Path = resolve_model(config.model)
        spec = read_spec(self.directory, config.model_impl, config.generation_config)
        self.spec: ModelSpec = adapted_spec(spec, config)
        own = shard or Shard(0, config.tensor_parallel_size)
        self.device = pick_device(device_of(config.device, own))
        self.dtype = pick_dtype(config.dtype, self.spec, self.device)
        self.asked_dtype = config.dtype
        self.config = replace(config, dtype=str(self.dtype).removeprefix("torch."))
        check_attention(self.config, self.spec, self.dtype, self.device)
        check_flow(self.config.technique, self.spec, adapters=bool(self.spec.adapters), keep=self.config.keep)
        check_reuse(self.config, self.spec)
        self.shelf = open_shelf(self.config, self.spec, self.directory) if computes else None
        self.tokenizer = load_tokenizer(self.directory, self.spec)
        self.adapters: AdapterBank | None = None
        self.keys = KeyTally(len(self.spec.kv_shapes))  # of what selectors leave to read
        self.flow: LayerFlow | None = None
        self.layers = LayerTally()  # of what flows let pass
        self.drafting: dict[str, Kept] = {}  # what drafters keep from one loop to the next
        self.ranks = Ranks(config, self.spec) if own.count > 1 and shard is None and computes else None
        if config.threads is not None or own.count > 1:
            torch.set_num_threads(config.threads or max(torch.get_num_threads() // own.count, 1))
        if computes:
            self.decoder = self._load(own, count)

    def _load(self, own: Shard, count: LoadCount | None) -> Decoder:
        config = self.config
        if self.spec.hosted is not None:
            return self._load_hosted(own)
        if config.load_format == "dummy":
            weights: Weights = dummy_weights(self.spec, self.dtype, config.seed, self.device)
        else:
            weights = StoredWeights(self.directory, self.spec, self.dtype, self.device, count)
        method = pick_linear(self.dtype, self.device, config.linear, packed=self.spec.quantization is not None)
        decoder = build_shard(self.spec, weights, own, self.device, method)
        self.flow = open_flow(config, decoder, weights, method, self.directory)
        if self.spec.adapters:
            self._put_adapters(decoder)
        return decoder

    def _put_adapters(self, decoder: Decoder) -> None:
        loader = AdapterLoader(self.spec, pick_linear(self.dtype, self.device), self.dtype, self.device)
        self.adapters = put_adapters(decoder, loader, self.adapters)

    def add_adapter(self, name: str, directory: str) -> None:
        """Load an adapter, which rows may name from now on. Raises UsageError, ModelError."""
        given = {adapter.name: adapter.directory for adapter in self.spec.adapters}
        if name in given:
            raise UsageError(f"lora={name!r}: the name is that of the adapter in {given[name]}")
        config = replace(self.config, lora={**given, name: directory})
        spec = adapted_spec(self.spec, config)
        if spec.adapters[-1].places:
            raise UsageError(f"lora={name!r}: a soft prompt belongs to the plan; give it to the LLM (lora=)")
        self.spec, self.config = spec, config
        if hasattr(self, "decoder"):
            self._put_adapters(self.decoder)

    def _load_hosted(self, own: Shard) -> Decoder:
        """A module of transformers in the place of our decoder."""
        from umbel.models.hosted.build import build_hosted  # here, as most models do not need transformers

        config = self.config
        if own.count > 1:
            raise UsageError(
                f"tensor_parallel_size={own.count}: {self.spec.family!r} models run through transformers, whose layers "
                "are not cut; data_parallel_size takes replicas"
            )
        method = pick_linear(self.dtype, self.device, config.linear)
        seed = config.seed if config.load_format == "dummy" else None
        return build_hosted(self.directory, self.spec, self.dtype, self.device, method, seed)

    def close(self) -> None:
        """Drop the weights, and end the other ranks."""
        self.__dict__.pop("decoder", None)
        self.drafting.clear()
        if self.shelf is not None:
            self.shelf.close()
        if self.ranks is not None:
            self.ranks.stop()

    @property
    def adapter_loads(self) -> int:
        """How often an adapter was read from its files."""
        return 0 if self.adapters is None else self.adapters.loads

    @property
    def techniques(self) -> RowTechniques:
        """What rows may take a part of."""
        return techniques_of(self.config)

    @property
    def defaults(self) -> Defaults:
        """What holds where rows say nothing."""
        spec = self.spec
        sizes, soft = (spec.max_positions, spec.vocab_size), SoftPrompts.of(spec.adapters)
        return Defaults(self.config.seed, spec.eos_token_ids, *sizes, spec.pooler, soft, self.techniques)


def load_tokenizer(directory: Path, spec: ModelSpec) -> Tokenizer | None:
    """The directory's tokenizer, or None when it has none (prompts are then token ids)."""
    if not source_at(directory).has("tokenizer.json"):
        return None
    tokenizer = Tokenizer.load(directory)
    tokenizer.check_fits(spec.vocab_size)
    return tokenizer


def plan_workload(model: Model, workload: Workload, machine: Machine, known: Known | None = None) -> Plan:
    """Plan for a model that is loaded; its weights have been taken from the free memory already."""
    return make_plan(
        workload, model.spec, model.config, machine, loaded=True, known=known, asked_dtype=model.asked_dtype
    )


def build_loop(
    model: Model,
    plan: Plan,
    runner: Runner,
    known: Known | None = None,
    spans: Spans = NO_SPANS,
    price: Price | None = None,
    queue: str = "plan",
    tbt: float | None = None,
) -> Loop:
    """The loop of a plan's pool and rules, without rows; `known` seeds the lengths that admission expects. `price` of
    steps decides how many proposed tokens they check (None: as many as there are), `queue` which row is next, `tbt` how
    many seconds a step may take while a row streams (None: only rows that are less urgent are held back for it)."""
    selected = selected_keys(model.config.technique, model.spec)
    meter, lengths = Meter(Windows.of(model.spec), selected=selected), known.lengths if known else None
    speculate = build_speculate(model, plan, meter, price)
    step, pace = "stall-free", None
    if price is not None:
        step, pace = step_rule(model.spec, model.config, LivePrice(price, meter), tbt, owned=hasattr(model, "decoder"))
    cost = plan.step_cost if queue == "plan" else 0.0
    policy = Policy(queue=queue, admission=plan.admission, step_cost=cost, step=step, pace=pace, keep=model.config.keep)
    scheduler = make_scheduler(plan, policy, lengths, speculate)
    watchers = known_watchers(model.config.watchers)
    loop = Loop(scheduler, runner, model.tokenizer, model.defaults, meter, spans, watchers)
    if (keeper := load_keeper(model.config.technique, model.spec)) is not None:
        start_forgetting(scheduler, keeper)
    for _, asked in registry.asked_of("prompt", model.config.technique):
        start_gaps(scheduler, asked)
    return loop


def drafter_of(model: Model, plan: Plan) -> str:
    """Who proposes tokens: as asked, else as planned."""
    asked = model.config.speculate
    return plan.speculate if asked == "auto" else asked


def build_speculate(model: Model, plan: Plan, meter: Meter, price: Price | None) -> Speculate | None:
    """The phase that has tokens proposed by the drafter that was asked for, or is the plan's; None where none is."""
    asked = drafter_of(model, plan)
    if asked in NONE["speculate"]:
        return None
    depth = Constant(MOST) if price is None else PricedDepth(LivePrice(price, meter))
    return Speculate(load_drafter(model, asked), Measured(depth))


def load_drafter(model: Model, asked: str) -> Drafter:
    """The drafter that an option names. Raises UsageError where it does not belong to the model."""
    (name, _, argument), spec = asked.partition(":"), model.spec
    if spec.recurrences:
        raise UsageError(f"speculate={asked!r}: {NOT_BACK}; leave it out")
    setting = Setting(spec.vocab_size, spec.max_positions, argument, model.config, model.tokenizer, model.drafting)
    drafter: Drafter = registry.load("drafter", name, setting)
    return drafter


def prepare_drafter(model: Model) -> int:
    """Load what the drafter that was asked for keeps from one loop to the next, so that one that does not belong to the
    model is refused before anything runs; returns the bytes of memory that it will take beside those it has."""
    asked = model.config.speculate
    if asked not in NONE["speculate"]:
        load_drafter(model, asked)
    return sum(kept.kv_bytes for kept in model.drafting.values())


def build_store(model: Model, n_pages: int, page_size: int, spare: KVStore | None = None) -> KVStore:
    """KV memory of so many pages: `spare`, if it has them. Raises CapacityError when the memory has no room."""
    if spare is not None and spare.page_size == page_size and spare.n_pages >= n_pages:
        return spare
    del spare  # before there is a second one
    if model.ranks is not None:
        model.ranks.make_store(n_pages, page_size)
    try:
        if (kind := model.config.kv_cache_dtype) not in NONE["kv_cache_dtype"]:
            scaled: KVStore = registry.load("kv", kind, model.decoder.spec, n_pages, page_size, model.device)
            return scaled
        return KVStore(model.decoder.spec, n_pages, page_size, model.dtype, model.device)
    except (RuntimeError, MemoryError, OSError) as error:
        tokens = f"{n_pages * page_size:,} tokens"
        raise CapacityError(f"a KV pool of {tokens} does not fit the memory: lower kv_tokens ({error})") from None


def build_runner(model: Model, store: KVStore, spans: Spans = NO_SPANS) -> Runner:
    """The runner of a model on a KV store."""
    asked = model.config.attention_backend, model.config.technique, model.keys
    attention = pick_attention(model.decoder.spec, store, model.device, *asked)
    states = StateStore.of(model.decoder.spec, store.n_pages, model.dtype, model.device)
    if model.ranks is not None:
        return ParallelRunner(TorchRunner(model.decoder, attention, model.device, spans), model.ranks.named)
    # A profile times one part after the other, and what ranks add up is no call of a kernel that could be recorded.
    is_alone = spans is NO_SPANS and model.config.tensor_parallel_size == 1
    reads_all = set(model.config.technique) <= {reuses(model.config)}
    recorded = pick_recorded(model.decoder, attention) if is_alone and reads_all else None
    flow = None if model.flow is None else FlowingRows(model.decoder, model.flow, model.layers)
    if model.device.type == "cpu" or spans is not NO_SPANS:
        return TorchRunner(model.decoder, attention, model.device, spans, states, recorded, flow)
    return AheadTorchRunner(model.decoder, attention, model.device, recorded, states, flow)
