// What Python calls for products with packed weights; see products.h for the layout.
#include "products.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "tape.h"
#include "team.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace nb = nanobind;

namespace umbel {

namespace {

bool is_avx512(const char* instruction_set) {
  return std::strncmp(instruction_set, "avx512", 6) == 0 || std::strcmp(instruction_set, "amx") == 0;
}

}  // namespace

const Products* float32_products(const char* instruction_set) {
#if defined(__x86_64__)
  if (is_avx512(instruction_set)) return &float32_products_avx512();
  if (std::strcmp(instruction_set, "avx2") == 0) return &float32_products_avx2();
#endif
  (void)instruction_set;
  return nullptr;
}

const Products* bfloat16_products(const char* instruction_set) {
#if defined(UMBEL_HAS_AMX)
  if (std::strcmp(instruction_set, "amx") == 0 && has_amx()) return &bfloat16_products_amx();
#endif
#if defined(__x86_64__)
#if defined(UMBEL_HAS_AVX512_BF16)
  __builtin_cpu_init();
  if (std::strcmp(instruction_set, "avx512_bf16") == 0 && __builtin_cpu_supports("avx512bf16"))
    return &bfloat16_products_avx512();
#endif
  if (std::strcmp(instruction_set, "avx512") == 0) return &wide_bfloat16_products_avx512();
  if (std::strcmp(instruction_set, "avx2") == 0) return &wide_bfloat16_products_avx2();
#endif
  (void)instruction_set;
  return nullptr;
}

const Products* int8_products(const char* instruction_set) {
#if defined(UMBEL_HAS_AMX)
  if (std::strcmp(instruction_set, "amx") == 0 && has_amx()) return &int8_products_amx();
#endif
  if (std::strcmp(instruction_set, "generic") == 0) return &int8_products_generic();
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(UMBEL_HAS_AVX512_VNNI)
  if (is_avx512(instruction_set) && __builtin_cpu_supports("avx512vnni")) return &int8_products_vnni();
#endif
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &int8_products_avx2();
#endif
  return nullptr;
}

const Products* int4_products(const char* instruction_set) {
#if defined(UMBEL_HAS_AMX)
  if (std::strcmp(instruction_set, "amx") == 0 && has_amx()) return &int4_products_amx();
#endif
  if (std::strcmp(instruction_set, "generic") == 0) return &int4_products_generic();
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(UMBEL_HAS_AVX512_VNNI)
  if (is_avx512(instruction_set) && __builtin_cpu_supports("avx512vnni")) return &int4_products_vnni();
#endif
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &int4_products_avx2();
#endif
  return nullptr;
}

namespace {

using Address = uintptr_t;
constexpr int64_t kChunk = 512;               // rows that pass a panel before the next panel's turn
constexpr int64_t kWorthAThread = 1 << 16;    // multiplications below which a second thread costs more than it brings

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// The row of the weights in column `lane` of a panel, or none: see Form::kGated.
const uint8_t* source(const uint8_t* from, int64_t rows, int64_t row_bytes, int64_t panel, int64_t lane, bool gated) {
  const int64_t half = kPanel / 2, in_half = panel * half + lane % half;
  const int64_t row = gated ? (lane < half ? in_half : rows / 2 + in_half) : panel * kPanel + lane;
  const bool there = gated ? in_half < rows / 2 : row < rows;
  return there ? from + row * row_bytes : nullptr;
}

// Four dwords of four rows, to where panels have them: as good a transpose as every x86-64 has.
#if defined(__SSE2__)
void turn(const uint8_t* const rows[4], int64_t k, uint32_t* to) {
  __m128i r[4];
  for (int i = 0; i < 4; i++) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + k * 4));
  const __m128i low = _mm_unpacklo_epi32(r[0], r[1]), low2 = _mm_unpacklo_epi32(r[2], r[3]);
  const __m128i high = _mm_unpackhi_epi32(r[0], r[1]), high2 = _mm_unpackhi_epi32(r[2], r[3]);
  __m128i* out = reinterpret_cast<__m128i*>(to + k * kPanel);
  constexpr int64_t kStep = kPanel / 4;
  _mm_storeu_si128(out, _mm_unpacklo_epi64(low, low2));
  _mm_storeu_si128(out + kStep, _mm_unpackhi_epi64(low, low2));
  _mm_storeu_si128(out + 2 * kStep, _mm_unpacklo_epi64(high, high2));
  _mm_storeu_si128(out + 3 * kStep, _mm_unpackhi_epi64(high, high2));
}
#else
void turn(const uint8_t* const rows[4], int64_t k, uint32_t* to) {
  for (int i = 0; i < 4; i++)
    for (int64_t j = k; j < k + 4; j++) std::memcpy(to + j * kPanel + i, rows[i] + j * 4, 4);
}
#endif

// Dwords [first, last) of a row, or zeros, to its column of a panel.
void spread(const uint8_t* row, int64_t first, int64_t last, uint32_t* to) {
  for (int64_t k = first; k < last; k++) {
    uint32_t value = 0;
    if (row != nullptr) std::memcpy(&value, row + k * 4, 4);
    to[k * kPanel] = value;
  }
}

void pack_panel(const uint8_t* from, uint32_t* to, int64_t rows, int64_t dwords, int64_t panel, bool gated) {
  to += panel * dwords * kPanel;
  constexpr int64_t kSome = 16;
  for (int64_t first = 0; first < dwords; first += kSome)
    for (int64_t lane = 0; lane < kPanel; lane += 4) {
      const uint8_t* row[4];
      for (int i = 0; i < 4; i++) row[i] = source(from, rows, dwords * 4, panel, lane + i, gated);
      const int64_t last = std::min(first + kSome, dwords);
      const bool whole = row[0] && row[1] && row[2] && row[3];
      const int64_t turned = whole ? first + (last - first) / 4 * 4 : first;
      for (int64_t k = first; k < turned; k += 4) turn(row, k, to + lane);
      for (int i = 0; i < 4; i++) spread(row[i], turned, last, to + lane + i);
    }
}

// Weights [rows][dwords] as panels.
void pack(Address from, Address to, int64_t rows, int64_t dwords, bool gated, int threads) {
  const int64_t panels = ((gated ? rows / 2 : rows) * (gated ? 2 : 1) + kPanel - 1) / kPanel;
  share(panels, threads, [&](int64_t panel, int) {
    pack_panel(at<const uint8_t>(from), at<uint32_t>(to), rows, dwords, panel, gated);
  });
}

// Rows `ids` of the weights that were packed, as they were.
void unpack(Address packed, Address ids, Address out, int64_t n, int64_t dwords, int threads) {
  share(n, n * dwords < kWorthAThread ? 1 : threads, [&](int64_t i, int) {
    const int64_t id = at<const int64_t>(ids)[i];
    const uint32_t* from = at<const uint32_t>(packed) + id / kPanel * dwords * kPanel + id % kPanel;
    uint32_t* to = at<uint32_t>(out) + i * dwords;
    for (int64_t k = 0; k < dwords; k++) to[k] = from[k * kPanel];
  });
}

// Some rows in one panel.
int64_t tasks_of(const Product& p) {
  return (p.outputs + width_of(p.form) - 1) / width_of(p.form) * ((p.rows + kChunk - 1) / kChunk);
}

void multiply_some(const Products& kernels, const Product& p, int64_t task, int threads) {
  const int64_t chunks = (p.rows + kChunk - 1) / kChunk, panels = tasks_of(p) / chunks;
  const int64_t chunk = task / panels, panel = task % panels, next = panel + threads;
  const uint32_t* ahead = next < panels ? p.weights + next * p.dwords * kPanel : nullptr;
  kernels.multiply(p, panel, ahead, p.rows * chunk / chunks, p.rows * (chunk + 1) / chunks);
}

void multiply(const Products& kernels, const Product& p, int threads) {
  if (p.rows * p.dwords * p.outputs < kWorthAThread) threads = 1;
  share(tasks_of(p), threads, [&](int64_t task, int) { multiply_some(kernels, p, task, threads); });
}

// Small products that do not wait for each other, with one call of the threads.
void multiply_all(const Products& kernels, const std::vector<Product>& all, int threads) {
  std::vector<int64_t> ends;
  int64_t work = 0, tasks = 0;
  for (const Product& p : all) {
    work += p.rows * p.dwords * p.outputs;
    ends.push_back(tasks += tasks_of(p));
  }
  if (work < kWorthAThread) threads = 1;
  share(tasks, threads, [&](int64_t task, int) {
    const auto which = std::upper_bound(ends.begin(), ends.end(), task) - ends.begin();
    multiply_some(kernels, all[which], task - (which == 0 ? 0 : ends[which - 1]), threads);
  });
}

// Rows side by side, of floats.
Product product(Address x, Address weights, Address bias, Address out, int64_t rows, int64_t dwords, int64_t outputs,
                Form form) {
  return {at<const uint8_t>(x), at<const uint32_t>(weights), at<void>(out), at<const float>(bias),
          rows, dwords, outputs, dwords, outputs, form, nullptr, nullptr, nullptr, 0, nullptr, nullptr};
}

struct Floats {
  const Products* kernels;
  bool narrow;
  Floats(const std::string& instruction_set, bool narrow)
      : kernels((narrow ? bfloat16_products : float32_products)(instruction_set.c_str())), narrow(narrow) {
    if (kernels == nullptr) throw std::invalid_argument("no such products for " + instruction_set);
  }
  void run(Address x, Address weights, Address bias, Address added, Address out, int64_t rows, int64_t dwords,
           int64_t outputs, int form, int threads) const {
    Product p = product(x, weights, bias, out, rows, dwords, outputs, static_cast<Form>(form));
    p.added = at<const void>(added);
    multiply(*kernels, p, threads);
  }
  // Adds to rows of `out` what a product makes of some columns of what another makes of those of `x`. `pairs`: of each the
  // first row, how many, the weights of the inner product, the dwords of a row between them, and the number of `parts`; of
  // each of these the first of those dwords and how many, the weights, the first output and how many.
  void add_pairs(Address x, Address out, int64_t dwords, int64_t outputs, std::vector<int64_t> pairs,
                 std::vector<int64_t> parts, int threads) const {
    constexpr size_t kFields = 5;
    const int64_t in_dword = narrow ? 2 : 1;
    int64_t size = 0;
    for (size_t i = 0; i < pairs.size(); i += kFields) size += pairs[i + 1] * pairs[i + 3];
    static thread_local std::vector<uint32_t> between;
    between.resize(size);
    std::vector<Product> first, second;
    uint32_t* inner = between.data();
    const int64_t* part = parts.data();
    for (size_t i = 0; i < pairs.size(); i += kFields) {
      const int64_t row = pairs[i], rows = pairs[i + 1], width = pairs[i + 3];
      first.push_back(product(x + row * dwords * 4, pairs[i + 2], 0, reinterpret_cast<Address>(inner), rows, dwords,
                              width * in_dword, narrow ? Form::kBfloat16 : Form::kFloat32));
      for (int64_t j = 0; j < pairs[i + 4]; j++, part += kFields) {
        const Address to = out + (row * outputs + part[3]) * 4 / in_dword;
        second.push_back(product(reinterpret_cast<Address>(inner + part[0]), part[2], 0, to, rows, part[1], part[4],
                                 narrow ? Form::kAdded : Form::kAddedFloat32));
        second.back().x_stride = width;
        second.back().out_stride = outputs;
      }
      inner += rows * width;
    }
    multiply_all(*kernels, first, threads);
    multiply_all(*kernels, second, threads);
  }
};

void quantise(const Products& kernels, const Rounding& r, int64_t rows, int threads) {
  const int64_t pieces = rows * r.width < kWorthAThread ? 1 : std::min<int64_t>(rows, 4 * threads);
  share(pieces, threads,
        [&](int64_t i, int) { kernels.quantise(r, rows * i / pieces, rows * (i + 1) / pieces); });
}

struct Int8 {
  const Products* kernels;
  explicit Int8(const std::string& instruction_set) : kernels(int8_products(instruction_set.c_str())) {
    if (kernels == nullptr) throw std::invalid_argument("no int8 products for " + instruction_set);
  }
  void quantise(Address x, bool narrow, Address out, Address scale, int64_t rows, int64_t width, int threads) const {
    const Rounding r = {at<const void>(x), narrow, at<uint8_t>(out), at<float>(scale), nullptr, width, width};
    umbel::quantise(*kernels, r, rows, threads);
  }
  void run(Address x, Address weights, Address bias, Address out, int64_t rows, int64_t dwords, int64_t outputs,
           int form, Address row_scale, Address column_scale, Address correction, int threads) const {
    Product p = product(x, weights, bias, out, rows, dwords, outputs, static_cast<Form>(form));
    p.row_scale = at<const float>(row_scale);
    p.column_scale = at<const float>(column_scale);
    p.correction = at<const int32_t>(correction);
    multiply(*kernels, p, threads);
  }
};

struct Int4 {
  const Products* kernels;
  explicit Int4(const std::string& instruction_set) : kernels(int4_products(instruction_set.c_str())) {
    if (kernels == nullptr) throw std::invalid_argument("no int4 products for " + instruction_set);
  }
  void quantise(Address x, bool narrow, Address out, Address scale, Address sum, int64_t rows, int64_t width, int64_t group,
                int threads) const {
    const Rounding r = {at<const void>(x), narrow, at<uint8_t>(out), at<float>(scale), at<int32_t>(sum), width, group};
    umbel::quantise(*kernels, r, rows, threads);
  }
  void run(Address x, Address weights, Address bias, Address out, int64_t rows, int64_t dwords, int64_t outputs, int form,
           Address row_scale, Address row_sum, int64_t group, int threads) const {
    Product p = product(x, weights, bias, out, rows, dwords, outputs, static_cast<Form>(form));
    p.row_scale = at<const float>(row_scale);
    p.group = group;
    p.row_sum = at<const int32_t>(row_sum);
    multiply(*kernels, p, threads);
  }
};

}  // namespace

void bind_products(nb::module_& m) {
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  m.def("has_bfloat16_products", [](const std::string& set) { return bfloat16_products(set.c_str()) != nullptr; });
  m.def("has_float32_products", [](const std::string& set) { return float32_products(set.c_str()) != nullptr; });
  m.def("pack", &pack, unlocked);
  m.def("unpack", &unpack, unlocked);
  nb::class_<Floats>(m, "FloatProducts")
      .def(nb::init<const std::string&, bool>())
      .def("multiply", taped(&Floats::run), unlocked)
      .def("add_pairs", taped(&Floats::add_pairs), unlocked);
  nb::class_<Int8>(m, "Int8Products")
      .def(nb::init<const std::string&>())
      .def("quantise", taped(&Int8::quantise), unlocked)
      .def("multiply", taped(&Int8::run), unlocked);
  nb::class_<Int4>(m, "Int4Products")
      .def(nb::init<const std::string&>())
      .def("quantise", taped(&Int4::quantise), unlocked)
      .def("multiply", taped(&Int4::run), unlocked);
}

}  // namespace umbel
