// The Python module `umbel.kernels.native._umbel`. Tensors come as addresses of contiguous memory, with their sizes:
// the Python side (native/__init__.py) checks shapes, types and strides.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "forest.h"
#include "kernels.h"
#include "tape.h"
#include "team.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace umbel {
bool has_amx();                      // products_int8_amx.cpp
void bind_products(nb::module_& m);  // products.cpp
}

namespace {

using namespace umbel;
using Longs = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bools = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Filters = std::tuple<Longs, Doubles, Doubles>;  // top-k, top-p, min-p
using Address = uintptr_t;

constexpr int64_t kWorthAThread = 1 << 15;  // values below which a second thread costs more than it brings

void* at(Address address) { return reinterpret_cast<void*>(address); }

Kind kind(bool narrow) { return narrow ? Kind::kBfloat16 : Kind::kFloat32; }

// Memory that a thread keeps for its next call: new pages would have to be cleared every time.
class Scratch {
 public:
  static float* floats(size_t n) {
    static thread_local Scratch mine;
    if (n > mine.floats_) mine.grow((n + 15) / 16 * 16);
    return mine.memory_;
  }
  ~Scratch() { std::free(memory_); }

 private:
  void grow(size_t n) {
    std::free(memory_);
    floats_ = 0;
    memory_ = static_cast<float*>(std::aligned_alloc(64, sizeof(float) * n));
    if (memory_ == nullptr) throw std::bad_alloc();
    floats_ = n;
  }

  float* memory_ = nullptr;
  size_t floats_ = 0;
};

const Kernels* find_kernels(const std::string& name) {
  if (name == "generic") return &generic_kernels();
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (name == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2_kernels();
  if (name == "avx512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return &avx512_kernels();
#if defined(UMBEL_HAS_AVX512_BF16)
  if (name == "avx512_bf16" && find_kernels("avx512") != nullptr && __builtin_cpu_supports("avx512bf16"))
    return &avx512_bf16_kernels();
#if defined(UMBEL_HAS_AMX)
  if (name == "amx" && has_amx() && find_kernels("avx512_bf16") != nullptr) {  // only products differ
    static const Kernels found = [] {
      Kernels table = avx512_bf16_kernels();
      table.name = "amx";
      return table;
    }();
    return &found;
  }
#endif
#endif
#endif
  return nullptr;
}

// Instruction sets that this processor has, the best one first.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> found;
  for (const char* name : {"amx", "avx512_bf16", "avx512", "avx2", "generic"})
    if (find_kernels(name) != nullptr) found.push_back(name);
  return found;
}

// The kernels of one instruction set on so many threads.
class Native {
 public:
  Native(const std::string& name) : kernels_(find_kernels(name)) {
    if (kernels_ == nullptr) throw std::invalid_argument("no kernels named " + name + " for this processor");
  }

  std::string name() const { return kernels_->name; }

  void attend(const Forest& forest, const Attention& a, int64_t kv_heads, int threads) const {
    const Layout layout = forest.layout();
    const int32_t blocks = forest.blocks();
    const int64_t each = (kernels_->attend_scratch(forest.most_rows() * a.group, a.dim, a.value_dim) + 15) / 16 * 16;
    if (forest.pairs() * kv_heads * a.group * a.dim < 4 * kWorthAThread) threads = 1;
    float* scratch = Scratch::floats(each * threads);
    // The last blocks first: in a prompt they read most.
    share(blocks * kv_heads, threads, [&](int64_t task, int worker) {
      const auto block = static_cast<int32_t>(blocks - 1 - task / kv_heads);
      kernels_->attend(a, layout, block, static_cast<int32_t>(task % kv_heads),
                       scratch + each * worker);
    });
  }

  void rms_norm(Address x, Address delta, Address total, Address weight, Address out, int64_t rows, int64_t width,
                float eps, bool narrow, int threads) const {
    const Norm a = {at(x), at(delta), at(total), at(weight), at(out), width, eps, kind(narrow)};
    split(rows, width, threads, [&](int64_t begin, int64_t end) { kernels_->rms_norm(a, begin, end); });
  }

  void gated_silu(Address x, Address out, int64_t rows, int64_t width, bool narrow, int threads) const {
    split(rows, 4 * width, threads, [=](int64_t begin, int64_t end) {
      kernels_->gated_silu(kind(narrow), at(x), at(out), begin, end, width);
    });
  }

  void rotate(Address x, Address cos, Address sin, Address q_norm, Address k_norm, Address keys, Address values,
              Address key_scales, Address value_scales, Address slots, int64_t rows, int64_t n_q, int64_t n_k, int64_t dim, int64_t n_slots, float eps, bool narrow,
              int threads) const {
    const HeadRotation a = {at(x), at(cos), at(sin), at(q_norm), at(k_norm), at(keys), at(values),
                            static_cast<float*>(at(key_scales)), static_cast<float*>(at(value_scales)),
                            static_cast<const int64_t*>(at(slots)), n_q, n_k, dim, n_slots, eps, kind(narrow)};
    split(rows, (n_q + n_k) * dim, threads, [&](int64_t begin, int64_t end) { kernels_->rotate(a, begin, end); });
  }

  void run_chain(Address matrices, Address source, Address target, Address queries, Address keys, Address values,
                 Address decay, Address rates, Address out, int64_t rows, int64_t heads, int64_t key_heads,
                 int64_t key_dim, int64_t value_dim, int threads) const {
    const auto floats = [](Address address) { return static_cast<float*>(at(address)); };
    const auto longs = [](Address address) { return static_cast<const int64_t*>(at(address)); };
    const ChainOfRows a = {floats(matrices), longs(source), longs(target), floats(queries), floats(keys), floats(values),
                           floats(decay), floats(rates), floats(out), rows, heads, key_heads, key_dim, value_dim};
    const int64_t blocks = (value_dim + kernels_->chain_columns - 1) / kernels_->chain_columns;
    if (rows * heads * key_dim * value_dim < kWorthAThread) threads = 1;
    share(heads * blocks, threads, [&](int64_t task, int) { kernels_->run_chain(a, task); });
  }

  void score_summaries(Address queries, Address summaries, Longs at_rows, Longs begin, Address out, int64_t kv_heads,
                       int64_t group, int64_t parts, int64_t width, int64_t cells, bool narrow, int threads) const {
    const int64_t tiles = static_cast<int64_t>(begin.shape(0)) - 1;
    const SummaryScores a = {static_cast<const float*>(at(queries)), at(summaries), at_rows.data(), begin.data(),
                             static_cast<float*>(at(out)), kv_heads, group, parts, width, cells, kind(narrow)};
    const int64_t each = kernels_->summary_scratch(group, width), n = static_cast<int64_t>(at_rows.shape(0));
    nb::gil_scoped_release release;
    if (n * kv_heads * parts * width < kWorthAThread) threads = 1;
    share(tiles * kv_heads, threads,
          [&](int64_t task, int) { kernels_->score_summaries(a, Scratch::floats(each), task); });
  }

  void argmax(Address x, Longs rows, int64_t width, nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig> ids,
              nb::ndarray<bool, nb::ndim<1>, nb::c_contig> bad, int threads) const {
    const int64_t n = static_cast<int64_t>(rows.shape(0));
    const int64_t* from = rows.data();
    int64_t* to = ids.data();
    bool* sick = bad.data();
    nb::gil_scoped_release release;
    split(n, width, threads, [=](int64_t begin, int64_t end) {
      kernels_->argmax(static_cast<const float*>(at(x)), from, to, sick, begin, end, width);
    });
  }

  void forbid(Address x, Longs rows, Longs mask_of, nb::ndarray<const uint32_t, nb::ndim<2>, nb::c_contig> masks,
              int64_t width, int threads) const {
    const int64_t n = static_cast<int64_t>(rows.shape(0)), words = static_cast<int64_t>(masks.shape(1));
    const int64_t *from = rows.data(), *kinds = mask_of.data();
    const uint32_t* bits = masks.data();
    nb::gil_scoped_release release;
    split(n, width, threads, [=](int64_t begin, int64_t end) {
      kernels_->forbid(static_cast<float*>(at(x)), from, kinds, bits, words, begin, end, width);
    });
  }

  void draw(Address x, Longs rows, Longs best, nb::ndarray<const float, nb::ndim<1>, nb::c_contig> temperatures,
            Longs noise, nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig> ids, std::optional<Filters> filters, int64_t width,
            int threads) const {
    Draws a = {static_cast<const float*>(at(x)), rows.data(), best.data(), temperatures.data(), noise.data(), nullptr, nullptr,
               nullptr, ids.data(), width};
    if (filters)
      a.top_k = std::get<0>(*filters).data(), a.top_p = std::get<1>(*filters).data(), a.min_p = std::get<2>(*filters).data();
    const int64_t n = static_cast<int64_t>(rows.shape(0)), each = kernels_->draw_scratch(width, a.top_k != nullptr);
    nb::gil_scoped_release release;
    if (n * width < kWorthAThread) threads = 1;
    share(n, threads, [&](int64_t i, int) {
      kernels_->draw(a, reinterpret_cast<double*>(Scratch::floats(2 * each)), i, i + 1);
    });
  }

 private:
  template <class Act>
  static void split(int64_t rows, int64_t width, int threads, Act act) {
    const int64_t pieces = rows * width < kWorthAThread ? 1 : std::min<int64_t>(rows, threads);
    share(pieces, threads, [&](int64_t i, int) { act(rows * i / pieces, rows * (i + 1) / pieces); });
  }

  const Kernels* kernels_;
};

Forest make_forest(Longs positions, Bools fresh, Longs parent, Longs start, Longs end, Longs row_begin, Longs row_end,
                   Longs subtree_end, Longs pages, Longs page_begin, int64_t page_size, int64_t scratch, int64_t group,
                   int64_t kv_heads, int64_t threads, int64_t window) {
  const StepArrays step = {positions.data(),
                           parent.data(),
                           start.data(),
                           end.data(),
                           row_begin.data(),
                           row_end.data(),
                           subtree_end.data(),
                           pages.data(),
                           page_begin.data(),
                           fresh.data(),
                           static_cast<int64_t>(positions.shape(0)),
                           static_cast<int64_t>(parent.shape(0)),
                           page_size};
  return Forest(step, {group, kv_heads, threads, window}, scratch);
}

// The slots that the rows' keys and values go to, as an array over the forest's own memory.
nb::ndarray<nb::numpy, int64_t, nb::ndim<1>> writes(nb::object self) {
  const auto& slots = nb::cast<const Forest&>(self).writes();
  return {const_cast<int64_t*>(slots.data()), {slots.size()}, self};
}

void attend(const Native& native, const Forest& forest, Address q, Address out, Address keys, Address values,
            Address key_scales, Address value_scales, Address sinks, Address cells, Address tile_of, int64_t n_cells,
            int64_t q_stride, int64_t slots, int64_t value_head_stride, int64_t value_stride, int64_t kv_heads, int32_t group, int32_t dim, int32_t value_dim, float scale, float cap,
            int64_t window, bool q_is_bfloat16, bool kv_is_bfloat16, int threads) {
  Attention a;
  a.q = at(q);
  a.out = at(out);
  a.keys = at(keys);
  a.values = at(values);
  a.key_scales = static_cast<const float*>(at(key_scales));
  a.value_scales = static_cast<const float*>(at(value_scales));
  a.q_stride = q_stride;
  a.out_stride = kv_heads * group * value_dim;
  a.slots = slots;
  a.value_head_stride = value_head_stride;
  a.value_stride = value_stride;
  a.dim = dim;
  a.value_dim = value_dim;
  a.group = group;
  a.window = window;
  a.q_kind = kind(q_is_bfloat16);
  a.kv_kind = key_scales != 0 ? Kind::kInt8 : kind(kv_is_bfloat16);
  a.scale = scale;
  a.cap = cap;
  a.sinks = static_cast<const float*>(at(sinks));
  a.reads = {static_cast<const uint8_t*>(at(cells)), static_cast<const int32_t*>(at(tile_of)), n_cells,
             static_cast<int32_t>(kv_heads)};
  native.attend(forest, a, kv_heads, threads);
}

}  // namespace

NB_MODULE(_umbel, m) {
  nb::set_leak_warnings(false);  // the kernels are kept to the end of the process, whatever else is freed before
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  m.attr("interface") = 12;  // see INTERFACE in calls.py
  m.def("instruction_sets", &instruction_sets);
  m.def("team_kind", &team_kind);
  bind_products(m);
  nb::class_<Forest>(m, "Forest")
      .def_prop_ro("tokens_read", &Forest::tokens_read)
      .def_prop_ro("blocks", &Forest::blocks)
      .def_prop_ro("rows", &Forest::rows)
      .def_prop_ro("writes", &writes)
      .def("replace", [](Forest& self, Forest& other) { self = std::move(other); });
  m.def("make_forest", &make_forest);
  nb::class_<Tape>(m, "Tape")
      .def(nb::init<>())
      .def("begin", &Tape::begin)
      .def("end", &Tape::end)
      .def("run", &Tape::run, unlocked)
      .def("__len__", &Tape::size);
  nb::class_<Native>(m, "Native")
      .def(nb::init<const std::string&>())
      .def_prop_ro("name", &Native::name)
      .def("rms_norm", taped(&Native::rms_norm), unlocked)
      .def("gated_silu", taped(&Native::gated_silu), unlocked)
      .def("rotate", taped(&Native::rotate), unlocked)
      .def("run_chain", taped(&Native::run_chain), unlocked)
      .def("score_summaries", &Native::score_summaries)
      .def("argmax", &Native::argmax)
      .def("forbid", &Native::forbid)
      .def("draw", &Native::draw, "x"_a, "rows"_a, "best"_a, "temperatures"_a, "noise"_a, "ids"_a, "filters"_a.none(), "width"_a,
           "threads"_a)
      .def("attend", taped(&attend), unlocked);
}
