// What the CPU can run, and in `testing` every operation of the Backend on float32 buffers, by instruction set.
#include <nanobind/stl/optional.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "backend/backend.h"
#include "base/cpu_limits.h"
#include "base/thread_pool.h"
#include "bindings/bind_common.h"
#include "cpu/panels.h"
#include "cpu/select.h"
#include "cpu/upload.h"

namespace ke {

Activation activation_named(const std::string& name) {
  if (name == "none") return Activation::None;
  if (name == "gelu_erf") return Activation::GeluErf;
  if (name == "quick_gelu") return Activation::QuickGelu;
  if (name == "relu") return Activation::Relu;
  if (name == "gelu_tanh") return Activation::GeluTanh;
  KE_CHECK(name == "silu", InvalidRequest, "unknown activation '", name, "'");
  return Activation::Silu;
}

namespace {

nb::bytes to_bytes(const std::vector<float>& v) { return nb::bytes(v.data(), v.size() * sizeof(float)); }

// Float32 values of a buffer; `count` of them.
std::vector<float> floats(nb::handle object, int64_t count, const char* what) {
  const BufferView view(object);
  KE_CHECK(static_cast<int64_t>(view.bytes().size()) == count * static_cast<int64_t>(sizeof(float)), InvalidRequest,
           what, ": expected ", count, " float32 values, got ", view.bytes().size(), " bytes");
  std::vector<float> v(count);
  std::memcpy(v.data(), view.bytes().data(), view.bytes().size());
  return v;
}

DType dtype(const std::string& name) {
  const DTypeInfo* info = find_dtype(std::string_view(name));
  KE_CHECK(info, InvalidRequest, "unknown dtype '", name, "'");
  return info->dtype;
}

// A matrix on the backend whose rows are `pad` floats further apart than they are wide.
struct Device {
  std::unique_ptr<Buffer> buffer;
  Mat mat;
  Device(Backend& b, const float* host, int64_t rows, int64_t cols, int64_t pad = 0)
      : buffer(b.alloc(rows * (cols + pad))), mat(buffer->data, rows, cols, cols + pad) {
    if (host) b.write(host, mat);
  }
};

// A RelativeBias on the backend, given as (values (heads, columns), columns, zero) or None; what pads it is NaN.
struct Bias {
  std::unique_ptr<Buffer> table;
  RelativeBias bias;
  Bias(Backend& b, const nb::object& given, int64_t heads) {
    if (given.is_none()) return;
    const auto [values, columns, zero] = nb::cast<std::tuple<nb::object, int64_t, int64_t>>(given);
    bias.stride = columns + 15, bias.zero = zero;
    const std::vector<float> host = floats(values, heads * columns, "bias");
    table = b.alloc(heads * bias.stride);
    const Mat all(*table, heads, bias.stride);
    b.write(std::vector<float>(static_cast<size_t>(heads * bias.stride), NAN).data(), all);
    b.write(host.data(), all.col_range(0, columns));
    bias.table = table.get();
  }
};

// A norm on the backend, given as (gamma, beta or None, eps) or (gamma, beta or None, eps, "layer" or "rms").
struct DeviceNorm {
  Norm norm;
  std::unique_ptr<Device> gamma, beta;
  DeviceNorm(Backend& b, const nb::tuple& given, int64_t cols) {
    const std::string kind = given.size() > 3 ? nb::cast<std::string>(given[3]) : "layer";
    KE_CHECK(kind == "layer" || kind == "rms", InvalidRequest, "unknown norm '", kind, "'");
    gamma = std::make_unique<Device>(b, floats(given[0], cols, "gamma").data(), 1, cols);
    if (!given[1].is_none()) beta = std::make_unique<Device>(b, floats(given[1], cols, "beta").data(), 1, cols);
    norm = {gamma->buffer.get(), beta ? beta->buffer.get() : nullptr, nb::cast<float>(given[2]),
            kind == "rms" ? NormKind::Rms : NormKind::Layer};
  }
};

// Matrices stacked by rows, given as (dtype, bytes, rows).
struct Parts {
  std::vector<Tensor> tensors;
  std::vector<std::unique_ptr<BufferView>> views;
  int64_t out = 0;
  Parts(const nb::list& parts, int64_t cols) {
    for (nb::handle h : parts) {
      const auto part = nb::cast<nb::tuple>(h);
      Tensor t;
      t.name = "part";
      t.dtype = dtype(nb::cast<std::string>(part[0]));
      t.shape = {nb::cast<int64_t>(part[2]), cols};
      views.push_back(std::make_unique<BufferView>(part[1]));
      t.data = views.back()->bytes().data();
      t.bytes = views.back()->bytes().size();
      out += t.shape[0];
      tensors.push_back(std::move(t));
    }
  }
};

// Every operation, on one backend. The methods may be called from several threads at once.
class Ops {
 public:
  Ops(const std::string& isa, int threads, const std::string& device)
      : backend_(make_backend({device, threads, isa})) {}

  std::string description() const { return backend_->description(); }
  const Backend& backend() const { return *backend_; }
  void alloc(int64_t floats) { backend_->alloc(floats); }
  void alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, const std::string& type) {
    backend_->alloc_kv(layers, kv_heads, head_dim, capacity, dtype(type));
  }

  // parts: (dtype, bytes, rows); norm: see DeviceNorm, or None; pad: see Device; large_batch: MatmulUse::LargeBatch.
  nb::bytes linear(const nb::list& parts, int64_t cols, nb::handle x, int64_t m, nb::handle bias,
                   const std::string& act, nb::handle residual, nb::handle norm, int64_t pad, bool large_batch) {
    const Parts w_parts(parts, cols);
    const int64_t out = w_parts.out;
    const std::vector<float> hx = floats(x, m * cols, "x"),
                             hb = bias.is_none() ? std::vector<float>() : floats(bias, out, "bias");
    const std::vector<float> hr = residual.is_none() ? std::vector<float>() : floats(residual, m * out, "residual");
    std::vector<float> result(m * out);
    std::unique_ptr<DeviceNorm> first;
    if (!norm.is_none()) first = std::make_unique<DeviceNorm>(*backend_, nb::cast<nb::tuple>(norm), cols);
    const Activation a = activation_named(act);
    {
      nb::gil_scoped_release release;
      const std::unique_ptr<Linear> w = backend_->upload(w_parts.tensors, hb.empty() ? nullptr : hb.data(),
                                                         large_batch ? MatmulUse::LargeBatch : MatmulUse::Any);
      Device dx(*backend_, hx.data(), m, cols, pad), dy(*backend_, hr.empty() ? nullptr : hr.data(), m, out, pad);
      const Mat r = hr.empty() ? Mat() : dy.mat;  // y += ...
      if (first) {
        Device s(*backend_, nullptr, m, cols, pad);
        backend_->norm_linear(dx.mat, first->norm, *w, a, r, s.mat, dy.mat);
      } else {
        backend_->linear(*w, dx.mat, a, r, dy.mat);
      }
      backend_->read(dy.mat, result.data());
    }
    return to_bytes(result);
  }

  // Some rows of the product alone; composed: by the default body of Backend.
  nb::bytes norm_linear_rows(const nb::list& parts, int64_t cols, nb::handle x, int64_t m, const nb::tuple& norm,
                             const std::vector<int32_t>& outputs, bool composed) {
    const Parts w_parts(parts, cols);
    const std::vector<float> hx = floats(x, m * cols, "x");
    const std::unique_ptr<Linear> w = backend_->upload(w_parts.tensors, nullptr);
    const DeviceNorm n(*backend_, norm, cols);
    Device dx(*backend_, hx.data(), m, cols, 3), s(*backend_, nullptr, m, cols, 3),
        dy(*backend_, nullptr, m, static_cast<int64_t>(outputs.size()), 5);
    if (composed)
      backend_->Backend::norm_linear_rows(dx.mat, n.norm, *w, outputs, s.mat, dy.mat);
    else
      backend_->norm_linear_rows(dx.mat, n.norm, *w, outputs, s.mat, dy.mat);
    return read(dy);
  }

  // rules: (allowed, temperature, top_k, top_p, random) per row, allowed as (begin, end) pairs; composed: by the
  // default body of Backend. Per row (id, finite, logit, top, sum).
  std::vector<std::tuple<int, bool, float, float, double>> sample(
      nb::handle logits, int64_t rows, int64_t cols, int64_t pad,
      const std::vector<std::tuple<std::vector<std::pair<int, int>>, float, int, float, double>>& rules,
      bool composed) {
    const std::vector<float> host = floats(logits, rows * cols, "logits");
    Device d(*backend_, host.data(), rows, cols, pad);
    std::vector<SamplingRule> all;
    for (const auto& [allowed, temperature, top_k, top_p, random] : rules) {
      all.push_back({{}, {temperature, top_k, top_p}, random});
      for (const auto& [begin, end] : allowed) all.back().allowed.push_back({begin, end});
    }
    std::vector<Sampled> sampled(all.size());
    {
      nb::gil_scoped_release release;
      if (composed)
        backend_->Backend::sample(d.mat, all, sampled);
      else
        backend_->sample(d.mat, all, sampled);
    }
    std::vector<std::tuple<int, bool, float, float, double>> out;
    for (const Sampled& c : sampled) out.push_back({c.id, c.finite, c.logit, c.top, c.sum});
    return out;
  }

  nb::bytes norm(nb::handle x, int64_t rows, int64_t cols, const nb::tuple& norm) {
    const std::vector<float> hx = floats(x, rows * cols, "x");
    const DeviceNorm n(*backend_, norm, cols);
    Device dx(*backend_, hx.data(), rows, cols, 3);
    backend_->norm(dx.mat, n.norm, dx.mat);
    return read(dx);
  }

  nb::bytes l2_normalize(nb::handle x, int64_t rows, int64_t cols, float eps) {
    const std::vector<float> hx = floats(x, rows * cols, "x");
    Device dx(*backend_, hx.data(), rows, cols, 3);
    backend_->l2_normalize(dx.mat, eps);
    return read(dx);
  }

  nb::bytes add(nb::handle x, nb::handle y, int64_t rows, int64_t cols) {
    const std::vector<float> hx = floats(x, rows * cols, "x"), hy = floats(y, rows * cols, "y");
    Device dx(*backend_, hx.data(), rows, cols, 3), dy(*backend_, hy.data(), rows, cols, 5);
    backend_->add(dx.mat, dy.mat);
    return read(dy);
  }

  // y + factor x, and factor x into a matrix of its own.
  nb::tuple add_scaled(nb::handle x, float factor, nb::handle y, int64_t rows, int64_t cols) {
    const std::vector<float> hx = floats(x, rows * cols, "x"), hy = floats(y, rows * cols, "y");
    Device dx(*backend_, hx.data(), rows, cols, 3), dy(*backend_, hy.data(), rows, cols, 5),
        scaled(*backend_, nullptr, rows, cols, 1);
    backend_->add_scaled(dx.mat, factor, dy.mat);
    backend_->scale(dx.mat, factor, scaled.mat);
    return nb::make_tuple(read(dy), read(scaled));
  }

  // halves (rows, 2 cols): gate and up side by side, as one product leaves them; the result takes the place of up.
  nb::bytes gate(nb::handle halves, const std::string& act, int64_t rows, int64_t cols) {
    const std::vector<float> host = floats(halves, rows * 2 * cols, "halves");
    Device d(*backend_, host.data(), rows, 2 * cols, 3), y(*backend_, nullptr, rows, cols);
    const Mat up = d.mat.col_range(cols, 2 * cols);
    backend_->gate(d.mat.col_range(0, cols), activation_named(act), up, up);
    backend_->copy(up, y.mat);
    return read(y);
  }

  nb::bytes copy(nb::handle x, int64_t rows, int64_t cols) {
    const std::vector<float> hx = floats(x, rows * cols, "x");
    Device dx(*backend_, hx.data(), rows, cols, 3), dy(*backend_, nullptr, rows, cols, 5);
    backend_->copy(dx.mat, dy.mat);
    return read(dy);
  }

  // Row r of x is at positions[r] of the table (rows, dims): see Rope.
  nb::bytes rope(nb::handle x, int64_t heads, int64_t head_dim, nb::handle table, int64_t table_rows, int64_t dims,
                 bool interleaved, const std::vector<int>& positions) {
    const int64_t rows = static_cast<int64_t>(positions.size()), cols = heads * head_dim;
    const std::vector<float> hx = floats(x, rows * cols, "x"), ht = floats(table, table_rows * dims, "table");
    Device dx(*backend_, hx.data(), rows, cols, 3), dt(*backend_, ht.data(), table_rows, dims);
    const std::unique_ptr<KvCache> cache = backend_->alloc_kv(1, heads, head_dim, 16, DType::F32);
    std::vector<KvPosition> at;
    for (int pos : positions) at.push_back({cache.get(), pos});
    backend_->rope(dx.mat, heads, {dt.buffer.get(), dims, interleaved}, at);
    return read(dx);
  }

  // The table as (dtype, bytes, rows); y (ids, cols) is what rows of negative ids keep; composed: by the default body.
  nb::bytes embed_rows(const nb::tuple& table, int64_t cols, const std::vector<int32_t>& ids, float factor,
                       nb::handle y, bool composed) {
    nb::list one;
    one.append(table);
    const Parts parts(one, cols);
    const int64_t rows = static_cast<int64_t>(ids.size());
    const std::vector<float> hy = floats(y, rows * cols, "y");
    Device dy(*backend_, hy.data(), rows, cols, 5);
    if (composed)
      backend_->Backend::embed_rows(parts.tensors[0], ids, factor, dy.mat);
    else
      backend_->embed_rows(parts.tensors[0], ids, factor, dy.mat);
    return read(dy);
  }

  // q (m, heads head_dim), kv (n, 2 kv_heads head_dim): keys and values side by side, as a projection leaves them.
  // kv_heads 0: as many as heads. bias: see Bias.
  nb::bytes attention(nb::handle q, nb::handle kv, int64_t m, int64_t n, int64_t heads, int64_t head_dim, float scale,
                      bool int8_scores, int64_t kv_heads, const nb::object& bias) {
    const Bias added(*backend_, bias, heads);
    const int64_t width = heads * head_dim, kv_width = (kv_heads ? kv_heads : heads) * head_dim;
    const std::vector<float> hq = floats(q, m * width, "q"), hkv = floats(kv, n * 2 * kv_width, "kv");
    Device dq(*backend_, hq.data(), m, width, 3), dkv(*backend_, hkv.data(), n, 2 * kv_width),
        out(*backend_, nullptr, m, width, 5);
    {
      nb::gil_scoped_release release;
      backend_->attention(dq.mat, dkv.mat.col_range(0, kv_width), dkv.mat.col_range(kv_width, 2 * kv_width), heads,
                          scale, out.mat, int8_scores ? ScoreType::Int8 : ScoreType::Float, added.bias);
    }
    return read(out);
  }

  // Makes and keeps a cache for `capacity` positions and writes the first `written`; returns its size in bytes.
  size_t hold_kv(int layers, int64_t heads, int64_t head_dim, int64_t capacity, int64_t written,
                 const std::string& type) {
    Device row(*backend_, nullptr, 1, heads * head_dim);
    held_.push_back(backend_->alloc_kv(layers, heads, head_dim, capacity, dtype(type)));
    for (int64_t p = 0; p < written; ++p)
      for (int l = 0; l < layers; ++l)
        backend_->kv_write(row.mat, row.mat, l, {{held_.back().get(), static_cast<int32_t>(p)}});
    return held_.back()->bytes();
  }

  // k, v (caches, n, kv_heads head_dim), kv_heads 0: as many as heads; row r of q attends in cache rows[r][0] up to
  // position rows[r][1]. Positions are written `batch` at a time into caches that grow on the way; with `copied`,
  // attention reads copies of the caches. They hold float16, else float32; or if `quantized` Q8_0.
  nb::bytes kv_attention(nb::handle q, nb::handle k, nb::handle v, const std::vector<std::pair<int, int>>& rows,
                         int64_t caches, int64_t n, int64_t heads, int64_t head_dim, float scale, bool half,
                         int64_t batch, int layers, bool copied, int64_t kv_heads, const nb::object& bias,
                         bool quantized) {
    const Bias added(*backend_, bias, heads);
    const int64_t all = heads * head_dim, m = static_cast<int64_t>(rows.size());
    if (kv_heads == 0) kv_heads = heads;
    const int64_t width = kv_heads * head_dim;
    const std::vector<float> hq = floats(q, m * all, "q"), hk = floats(k, caches * n * width, "k"),
                             hv = floats(v, caches * n * width, "v");
    const DType type = quantized ? DType::Q8_0 : half ? DType::F16 : DType::F32;
    Device dq(*backend_, hq.data(), m, all), dk(*backend_, hk.data(), caches * n, width, 3),
        dv(*backend_, hv.data(), caches * n, width, 3);
    Device out(*backend_, nullptr, m, all, 5);
    std::vector<std::unique_ptr<KvCache>> store;
    for (int64_t c = 0; c < caches; ++c) {
      store.push_back(backend_->alloc_kv(layers, kv_heads, head_dim, 1, type));
      for (int64_t i = 0; i < n; i += batch) {
        const int64_t end = std::min(n, i + batch);
        std::vector<KvPosition> positions;
        for (int64_t p = i; p < end; ++p) positions.push_back({store.back().get(), static_cast<int32_t>(p)});
        backend_->reserve(*store.back(), end);
        for (int l = 0; l < layers; ++l)
          backend_->kv_write(dk.mat.row_range(c * n + i, c * n + end), dv.mat.row_range(c * n + i, c * n + end), l,
                             positions);
      }
    }
    if (copied)
      for (auto& c : store) {
        std::unique_ptr<KvCache> other = backend_->alloc_kv(layers, kv_heads, head_dim, 1, type);
        for (int64_t i = 0; i < n; i += batch) backend_->kv_copy(*c, *other, i, std::min(n, i + batch));
        c = std::move(other);
      }
    std::vector<KvPosition> positions;
    for (const auto& [cache, pos] : rows) positions.push_back({store.at(cache).get(), pos});
    {
      nb::gil_scoped_release release;
      backend_->kv_attention(dq.mat, layers - 1, heads, scale, positions, out.mat, added.bias);
    }
    return read(out);
  }

 private:
  nb::bytes read(const Device& d) {
    std::vector<float> host(d.mat.rows * d.mat.cols);
    backend_->read(d.mat, host.data());
    return to_bytes(host);
  }
  std::shared_ptr<Backend> backend_;
  std::vector<std::shared_ptr<KvCache>> held_;
};

// (codes, scales) of x (rows, cols) as the linear kernels of `isa` see them: int8 (rows, cols), float32 (rows, blocks).
nb::tuple quantize_activations(const std::string& isa, nb::handle x, int64_t rows, int64_t cols) {
  const cpu::Kernels& kernels = cpu::select_kernels(isa);
  KE_CHECK(cols % 32 == 0, InvalidRequest, "rows of ", cols, " values are no multiple of 32");
  const std::vector<float> hx = floats(x, rows * cols, "x");
  const int block = cols % cpu::kBlock == 0 ? cpu::kBlock : 32;
  const int64_t blocks = cols / block;
  const int64_t supers = (cols + cpu::kBlock - 1) / cpu::kBlock;
  std::vector<int8_t> codes(rows * supers * cpu::kBlock), mins(rows * supers * 16), out(rows * cols);
  std::vector<float> scale(rows * blocks), out_scale(rows * blocks);
  std::vector<int32_t> sum16(rows * supers * 16), sum32(rows * supers * 8), starts(rows * supers * cpu::kStarts);
  std::vector<int32_t> total(rows * supers);
  const cpu::Packed packed{rows,         cols,         block,       nullptr,       codes.data(), scale.data(),
                           sum16.data(), sum32.data(), mins.data(), starts.data(), total.data(), false};
  for (int64_t r = 0; r < rows; ++r) {
    kernels.pack_quantized(hx.data() + r * cols, &packed, r);
    for (int64_t b = 0; b < blocks; ++b) out_scale[r * blocks + b] = scale[b * rows + r];
    for (int64_t k = 0; k < cols; ++k)
      out[r * cols + k] = codes[(k / cpu::kBlock * rows + r) * cpu::kBlock + k % cpu::kBlock];
  }
  return nb::make_tuple(nb::bytes(out.data(), out.size()), to_bytes(out_scale));
}

// `callers` threads each run `rounds` jobs of n indices on one pool; how often each index was visited (callers * rounds
// when all is well), or -1 where a range was not a multiple of grain.
std::vector<int> visits(int threads, int64_t n, int64_t grain, int callers, int rounds) {
  ThreadPool pool(threads);
  std::vector<std::atomic<int>> count(n);
  std::atomic<bool> ragged{false};
  const auto call = [&] {
    for (int i = 0; i < rounds; ++i)
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        if (begin % grain || (end % grain && end != n)) ragged = true;
        for (int64_t j = begin; j < end; ++j) ++count[j];
      });
  };
  std::vector<std::thread> others;
  for (int i = 1; i < callers; ++i) others.emplace_back(call);
  call();
  for (std::thread& t : others) t.join();
  std::vector<int> result;
  for (const auto& c : count) result.push_back(ragged ? -1 : c.load());
  return result;
}

}  // namespace

void bind_ops(nb::module_& m) {
  m.def(
      "isa", [] { return cpu::select_kernels("").name; },
      "The instruction set whose kernels run by default here: KOSMOS_EDGE_ISA, else the best available.");
  m.def("devices", &list_devices,
        "(name, why it cannot be used here) of every device this build knows, best first; \"\" means that it can.");
  m.def("available_isas", &cpu::available_isas, "Instruction sets this machine can run, best first.");
  m.def("default_threads", &default_thread_count,
        "Threads used when none are asked for: affinity, control-group quota, OMP_NUM_THREADS.");

  nb::module_ t = nb::cast<nb::module_>(m.attr("testing"));
  nb::class_<Ops>(t, "Ops")
      .def(nb::init<const std::string&, int, const std::string&>(), nb::arg("isa"), nb::arg("threads"),
           nb::arg("device") = "cpu")
      .def_prop_ro("description", &Ops::description)
      .def_prop_ro("kernel_choices", [](const Ops& ops) { return choice_list(ops.backend().kernel_choices()); })
      .def("linear", &Ops::linear, nb::arg("parts"), nb::arg("cols"), nb::arg("x"), nb::arg("m"),
           nb::arg("bias").none(), nb::arg("act"), nb::arg("residual").none(), nb::arg("norm").none(), nb::arg("pad"),
           nb::arg("large_batch") = false)
      .def("norm_linear_rows", &Ops::norm_linear_rows)
      .def("sample", &Ops::sample, nb::arg("logits"), nb::arg("rows"), nb::arg("cols"), nb::arg("pad"),
           nb::arg("rules"), nb::arg("composed") = false)
      .def("alloc", &Ops::alloc)
      .def("alloc_kv", &Ops::alloc_kv)
      .def("norm", &Ops::norm)
      .def("l2_normalize", &Ops::l2_normalize)
      .def("add", &Ops::add)
      .def("add_scaled", &Ops::add_scaled)
      .def("gate", &Ops::gate)
      .def("copy", &Ops::copy)
      .def("attention", &Ops::attention, nb::arg("q"), nb::arg("kv"), nb::arg("m"), nb::arg("n"), nb::arg("heads"),
           nb::arg("head_dim"), nb::arg("scale"), nb::arg("int8_scores") = false, nb::arg("kv_heads") = 0,
           nb::arg("bias").none() = nb::none())
      .def("kv_attention", &Ops::kv_attention, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("rows"),
           nb::arg("caches"), nb::arg("n"), nb::arg("heads"), nb::arg("head_dim"), nb::arg("scale"), nb::arg("half"),
           nb::arg("batch"), nb::arg("layers"), nb::arg("copied"), nb::arg("kv_heads") = 0,
           nb::arg("bias").none() = nb::none(), nb::arg("quantized") = false)
      .def("hold_kv", &Ops::hold_kv, nb::arg("layers"), nb::arg("heads"), nb::arg("head_dim"), nb::arg("capacity"),
           nb::arg("written"), nb::arg("type") = "F16")
      .def("rope", &Ops::rope)
      .def("embed_rows", &Ops::embed_rows);
  t.def("quantize_activations", &quantize_activations);
  t.def("visits", &visits, nb::call_guard<nb::gil_scoped_release>());
  t.def("cgroup_cpu_quota", &cgroup_cpu_quota);
  t.def("omp_num_threads", &omp_num_threads);
  t.def("make_backend", [](const std::string& device, int threads, const std::string& isa) {
    return make_backend({device, threads, isa})->description();
  });
  t.def("panel_bytes", [](const std::string& name, int64_t cols) {
    return cpu::panel_bytes(cpu::panel_type(dtype(name), false), cols);
  });
}

}  // namespace ke
