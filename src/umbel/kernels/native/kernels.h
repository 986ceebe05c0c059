// Arguments and results of the compiled kernels; plain C types only, so that each instruction set has its own copy.
#pragma once

#include <cstdint>

namespace umbel {

constexpr int kGrid = 128;  // positions of a cell: see umbel/attention/layout.py

// A run of keys in one node, as part of a cell: rows [row_begin, row_end) read keys [key_begin, key_end) of the cell,
// whose slots are slots[slot_at], slots[slot_at + 1] ...
struct Piece {
  int32_t row_begin, row_end, key_begin, key_end;
  int64_t slot_at;
};

// Positions [first, first + kGrid) as the rows [row_begin, row_end) see them; pieces in depth-first order.
struct Cell {
  int32_t row_begin, row_end, piece_begin, piece_end;
  int64_t first;
};

// A step, laid out. Block b is rows [block_rows[b], block_rows[b + 1]) and reads the cells block_cells[i] for i from
// block_begin[b] to block_begin[b + 1], in order of position for each row.
struct Layout {
  const Cell* cells;
  const Piece* pieces;
  const int32_t* slots;
  const int64_t* positions;
  const int32_t* block_rows;
  const int32_t* block_begin;
  const int32_t* block_cells;
};

// What rows read: row r is of the tile tile_of[r], and of cell c (positions [kGrid * c, kGrid * (c + 1))) a tile reads the
// keys of KV head h where cells[(tile * kv_heads + h) * n_cells + c] is not 0. A row always reads the cell it stands in.
struct Reads {
  const uint8_t* cells = nullptr;  // none: everything
  const int32_t* tile_of = nullptr;
  int64_t n_cells = 0;
  int32_t kv_heads = 0;
};

enum class Kind : int32_t { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };

// Queries are [rows, kv heads * group, dim], rows `q_stride` apart, and outputs [rows, kv heads * group, value_dim], rows
// `out_stride` apart. Keys are [kv heads, slots, dim] and values [kv heads, slots, value_dim], slots `value_stride` apart
// and heads `value_head_stride`, as values may be the first part of keys; of int8 ones the scales are [kv heads, slots].
// All strides count elements.
struct Attention {
  const void* q;
  void* out;
  const void* keys;
  const void* values;
  const float *key_scales, *value_scales;
  int64_t q_stride, out_stride, slots, value_head_stride, value_stride;
  int32_t dim, value_dim, group;
  int64_t window;  // 0: none
  Kind q_kind, kv_kind;
  float scale;
  float cap;           // scores become cap * tanh(score / cap); 0: they stay
  const float* sinks;  // [kv heads * group]: a score of no key, which adds to the sum of weights; or none
  Reads reads;
};

// out = weight * x / rms(x) for rows of `width`; with `delta`, of total = x + delta instead of x.
struct Norm {
  const void *x, *delta;
  void* total;
  const void* weight;
  void* out;
  int64_t width;
  float eps;
  Kind kind;
};

// Rows of n_q + 2 * n_k heads: queries, keys, values. Norm (where the weights are given) and rotate, in place, queries and
// keys; cosines and sines are [rows][dim / 2]. Then keys and values of row r are copied to slot slots[r] of `keys` and
// `values` ([n_k][n_slots][dim], of the same kind), where these are given; with scales ([n_k][n_slots]) they are int8.
struct HeadRotation {
  void* x;
  const void *cos, *sin, *q_norm, *k_norm;
  void *keys, *values;
  float *key_scales, *value_scales;
  const int64_t* slots;
  int64_t n_q, n_k, dim, n_slots;
  float eps;
  Kind kind;
};

// Draw i: from row rows[i] of x ([..][width]), whose largest value is at best[i], divided by temperatures[i], from what
// its filters leave (0, 1 and 0 leave all; no arrays: no filters), by the noise that noise[i] keys.
struct Draws {
  const float* x;
  const int64_t *rows, *best;
  const float* temperatures;
  const int64_t* noise;
  const int64_t* top_k;
  const double *top_p, *min_p;
  int64_t* ids;
  int64_t width;
};

// Row r goes on from the matrices of page source[r] (-1: from zeros) and leaves them in page target[r] (-1: it only reads).
// A matrix is [key_dim][value_dim] and fades by `decay` ([rows][heads]); what is added is the outer product of the row's
// key ([rows][key_heads][key_dim]) and value ([rows][heads][value_dim]), or with `rates` ([rows][heads]) the rate times
// what the value differs by from what the matrix has for the key. `out`: what queries read of it then.
struct ChainOfRows {
  float* matrices;  // [pages][heads][key_dim][value_dim]
  const int64_t *source, *target;
  const float *queries, *keys, *values, *decay, *rates;
  float* out;
  int64_t rows, heads, key_heads, key_dim, value_dim;
};

// For tile t and KV head h, the largest product of its queries ([tiles][kv_heads][group][width]) with the `parts` of each
// of its summaries: rows at[begin[t]], at[begin[t] + 1] ... before at[begin[t + 1]] of `summaries`
// ([..][kv_heads][parts][width]); to out[t][h], of `cells` floats.
struct SummaryScores {
  const float* queries;
  const void* summaries;
  const int64_t *at, *begin;
  float* out;
  int64_t kv_heads, group, parts, width, cells;
  Kind kind;
};

struct Kernels {
  const char* name;
  // Floats of scratch that `attend` needs for a block of so many queries.
  int64_t (*attend_scratch)(int64_t queries, int32_t dim, int32_t value_dim);
  // Attention of one block of rows for one KV head.
  void (*attend)(const Attention& a, const Layout& layout, int32_t block, int32_t kv_head, float* scratch);
  // Over rows [begin, end): see the records.
  void (*rms_norm)(const Norm& a, int64_t begin, int64_t end);
  // out[r] = silu(x[r, :width]) * x[r, width:]
  void (*gated_silu)(Kind kind, const void* x, void* out, int64_t begin, int64_t end, int64_t width);
  void (*rotate)(const HeadRotation& a, int64_t begin, int64_t end);
  // The first place of the largest value of rows of x, and whether that value is finite.
  void (*argmax)(const float* x, const int64_t* rows, int64_t* ids, bool* bad, int64_t begin, int64_t end,
                 int64_t width);
  // -inf for the tokens of rows of x that their masks ([..][words]) leave out: bit t % 32 of word t / 32 is token t's.
  void (*forbid)(float* x, const int64_t* rows, const int64_t* mask_of, const uint32_t* masks, int64_t words,
                 int64_t begin, int64_t end, int64_t width);
  // Doubles of scratch that `draw` needs.
  int64_t (*draw_scratch)(int64_t width, bool filtered);
  void (*draw)(const Draws& a, double* scratch, int64_t begin, int64_t end);
  // Task t of heads * ceil(value_dim / chain_columns): some columns of one head.
  int64_t chain_columns;
  void (*run_chain)(const ChainOfRows& a, int64_t task);
  // Floats of scratch that `score_summaries` needs, and its task t of tiles * kv_heads.
  int64_t (*summary_scratch)(int64_t group, int64_t width);
  void (*score_summaries)(const SummaryScores& a, float* scratch, int64_t task);
};

const Kernels& generic_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();  // where the compiler knows them: UMBEL_HAS_AVX512_BF16
#endif

}  // namespace umbel
