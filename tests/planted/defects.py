"""Small edits that break a promise each: what tests/planted/run.py applies, one at a time, to see that a test fails."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """`old` occurs exactly once in `file`; the named tests are run with `new` in its place."""

    name: str
    file: str
    old: str
    new: str
    tests: str  # files below tests/, separated by blanks


DEFECTS = [
    # ---- bounds removed or moved
    Defect(
        "a read may begin inside of the file and end behind it",
        "csrc/format/cursor.h",
        "KE_CHECK(count <= remaining(), ModelCorrupt",
        "KE_CHECK(position_ < bytes_.size(), ModelCorrupt",
        "test_gguf.py test_gguf_damage.py",
    ),
    Defect(
        "a tensor may end behind the file",
        "csrc/format/gguf.cpp",
        "checked_add(begin, t.bytes, &end) && end <= size",
        "checked_add(begin, t.bytes, &end)",
        "test_gguf.py test_gguf_damage.py",
    ),
    Defect(
        "the number of a tensor's values wraps",
        "csrc/format/gguf.cpp",
        "checked_mul(count, extent, &count) && count <= INT64_MAX",
        "(count *= extent, true)",
        "test_gguf.py",
    ),
    Defect(
        "tensors may overlap",
        "csrc/format/gguf.cpp",
        "order[i - 1]->data + order[i - 1]->bytes <= order[i]->data",
        "order[i - 1]->data <= order[i]->data",
        "test_gguf.py",
    ),
    Defect(
        "an array may be as long as it says",
        "csrc/format/gguf.cpp",
        "check(v.count <= max_array,",
        "check(true || v.count <= max_array,",
        "test_gguf.py",
    ),
    Defect(
        "a value of another type is taken",
        "csrc/format/gguf.cpp",
        "check(v.type == type, ",
        "check(v.type != MetaType::Array, ",
        "test_gguf.py test_config.py test_hostile_schema.py",
    ),
    Defect(
        "a picture may have any number of pixels",
        "csrc/image/resize.cpp",
        "is_side(width) && is_side(height) && width * height <= kMaxImagePixels",
        "is_side(width) && is_side(height)",
        "test_image_resize.py test_images.py",
    ),
    Defect(
        "a tensor of a checkpoint may be smaller than its shape",
        "convert/sources/safetensors.py",
        "tensor.elements > MAX_ELEMENTS or tensor.nbytes != end - begin",
        "tensor.elements > MAX_ELEMENTS",
        "test_convert_containers.py",
    ),
    Defect(
        "a pickled tensor may exceed its storage",
        "convert/sources/unpickle.py",
        "if offset + elements > storage.elements:",
        "if elements > storage.elements:",
        "test_unpickle.py",
    ),
    Defect(
        "a pickle may name what runs programs",
        "convert/sources/unpickle.py",
        '"os", "posix", "nt", "subprocess",',
        '"nt",',
        "test_unpickle.py",
    ),
    # ---- comparisons swapped, one off
    Defect(
        "heads of any width",
        "csrc/models/schema_groups.cpp",
        "width % heads == 0 && width / heads % 8 == 0 && width / heads <= 256",
        "width % heads == 0 && width / heads % 8 == 0 && width / heads >= 1",
        "test_config.py test_hostile_schema.py",
    ),
    Defect(
        "a number that is none is inside of every range",
        "csrc/models/schema.cpp",
        "return value >= (is_real ? static_cast<float>(row_.min) : row_.min) &&",
        "return !(value < (is_real ? static_cast<float>(row_.min) : row_.min)) ||",
        "test_config.py test_hostile_schema.py",
    ),
    Defect(
        "the tag table is one off",
        "csrc/engine/constraint.cpp",
        "upper_left_ = id - f_.first_location;",
        "upper_left_ = id - f_.first_location + 1;",
        "test_decoding_rules.py test_api.py test_engine_goldens.py",
    ),
    Defect(
        "n-grams are counted one too short",
        "csrc/engine/sampler.cpp",
        "const auto prefix = sequence.end() - (n - 1);",
        "const auto prefix = sequence.end() - (n > 1 ? n - 2 : 0);",
        "test_decoding_rules.py test_engine_goldens.py",
    ),
    Defect(
        "another picture's keys and values are reused",
        "csrc/engine/prefix_cache.cpp",
        "if (here != there) return std::min(here.first, there.first);",
        "if (here.first != there.first) return std::min(here.first, there.first);",
        "test_reuse.py",
    ),
    Defect(
        "the last range of a parallel loop runs over the end",
        "csrc/base/thread_pool.cpp",
        "(*body)(begin, std::min(n, begin + range));",
        "(*body)(begin, begin + range);",
        "test_threads.py",
    ),
    # ---- wrong numbers
    Defect(
        "a wrong scale in Q6_K",
        "csrc/quant/k_codec.cpp",
        "out[k * block + i] = (d * b[k].scales[i / 16])",
        "out[k * block + i] = (d * b[k].scales[i / 32])",
        "test_codec.py",
    ),
    Defect(
        "the high bits of a scale of Q4_K are lost",
        "csrc/quant/k_layout.h",
        "scale[4 + j] = static_cast<uint8_t>((packed[8 + j] & 15) | (packed[j] >> 6) << 4);",
        "scale[4 + j] = static_cast<uint8_t>(packed[8 + j] & 15);",
        "test_codec.py",
    ),
    Defect(
        "bytes wrap instead of saturating",
        "csrc/image/resize.cpp",
        "static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255))",
        "static_cast<uint8_t>(sum >> kWeightBits)",
        "test_image_resize.py",
    ),
    Defect(
        "attention is scaled by the whole width",
        "csrc/layers/vit.cpp",
        "std::sqrt(static_cast<float>(b.head_dim))",
        "std::sqrt(static_cast<float>(d))",
        "test_engine_goldens.py",
    ),
    Defect(
        "rotary positions turn the other way",
        "csrc/cpu/units/rows.cpp",
        "store_n(x + i, sub(mul(a, c), mul(b, s)), n);",
        "store_n(x + i, add(mul(a, c), mul(b, s)), n);",
        "test_ops_decoder.py",
    ),
    Defect(
        "heads share the wrong keys",
        "csrc/cpu/attention.cpp",
        "cache.tiles(layer, head / group);",
        "cache.tiles(layer, head % cache.heads());",
        "test_ops_decoder.py",
    ),
    Defect(
        "a tile's rows forget to shrink what they summed before",
        "csrc/cpu/units/attention_tiles.cpp",
        "if (to.earlier[c] != 1)",
        "if (to.earlier[c] > 1)",
        "test_ops_attention.py",
    ),
    Defect(
        "a run of rows mixes both ways of attention",
        "csrc/cpu/attention.cpp",
        " && by_tiles(end) == by_tiles(r))",
        ")",
        "test_ops_attention.py",
    ),
    # ---- cancelling, errors, memory
    Defect(
        "the decoder does not ask whether it is cancelled",
        "csrc/models/vision_language.cpp",
        "decoder_.forward(*lease, rows, logit_rows, logits, cancel, vocab_subset);",
        "decoder_.forward(*lease, rows, logit_rows, logits, nullptr, vocab_subset);",
        "test_capi_threads.py test_api_stream.py test_batch_engine.py",
    ),
    Defect(
        "the picture encoder does not ask whether it is cancelled",
        "csrc/models/square_encoder.cpp",
        "vit_.forward(ws, patches.data(), cancel);",
        "vit_.forward(ws, patches.data(), nullptr);",
        "test_capi_threads.py test_api_stream.py",
    ),
    Defect(
        "an error of the library is swallowed",
        "csrc/capi/support.h",
        "return report(error, status_of(e.code()), e.what());",
        "return report(error, status_of(e.code()), e.what()), KOSMOS_OK;",
        "test_capi.py",
    ),
    Defect(
        "numbers that are none are sampled",
        "csrc/engine/sampler.cpp",
        "KE_CHECK(all_finite(logits), ModelCorrupt",
        "KE_CHECK(true || all_finite(logits), ModelCorrupt",
        "test_poisoned_weights.py",
    ),
    Defect(
        "refused memory is used",
        "csrc/cpu/memory.cpp",
        "KE_CHECK(p, OutOfMemory,",
        "KE_CHECK(true || p, OutOfMemory,",
        "test_ops_rows.py test_memory_refusal.py",
    ),
    Defect(
        "a descriptor is left open",
        "csrc/base/mapped_file.cpp",
        "if (fd >= 0) close(fd);",
        "if (fd > 1000) close(fd);",
        "test_memory_refusal.py test_capi_threads.py",
    ),
    Defect(
        "a freed handle is followed",
        "csrc/capi/handles.cpp",
        "p.object && p.kind == kind && p.generation == value >> kGenerationShift &&",
        "p.object && p.kind == kind &&",
        "test_capi.py test_capi_threads.py",
    ),
    Defect(
        "an answer of a batch takes its neighbour's logits",
        "csrc/engine/batch.cpp",
        "rest = rest.subspan(own.size());",
        "rest = rest.subspan(members_.size() > 2 ? 0 : own.size());",
        "test_batch_engine.py",
    ),
    # ---- files
    Defect(
        "the data's fsync is missing",
        "convert/atomic.py",
        "            os.fsync(self._fd)\n",
        "            pass\n",
        "test_convert_crash.py",
    ),
    Defect(
        "the folder's fsync is missing",
        "kosmos_edge/targets.py",
        "        os.fsync(folder)\n",
        "        pass\n",
        "test_convert_crash.py",
    ),
    Defect(
        "the file of a running conversion is removed",
        "convert/atomic.py",
        "            if lock(fd):\n",
        "            if lock(fd) or True:\n",
        "test_convert_crash.py",
    ),
    Defect(
        "an input is overwritten",
        "convert/sources/files.py",
        "return os.path.samestat(os.stat(path), self._stat)",
        "return os.path.abspath(path) == os.path.abspath(self.path)",
        "test_convert_crash.py",
    ),
    Defect(
        "a flipped bit goes unnoticed",
        "convert/verify.py",
        "if sha256.hexdigest() != expected:",
        "if sha256.hexdigest()[:1] != expected[:1] and nbytes % 2:",
        "test_convert.py test_convert_files.py",
    ),
    # ---- texts and pictures
    Defect(
        "a user's text may spell tags",
        "kosmos_edge/inference/tasks.py",
        'out.append(("tags" if tags else "text", _check_words(name, check_text(name, segment))))',
        'out.append(("tags", _check_words(name, check_text(name, segment))))',
        "test_api_requests.py test_api.py",
    ),
    Defect(
        "a truncated picture is answered",
        "kosmos_edge/images.py",
        "            stored = _orientation(image)\n            image.load()\n",
        "            ImageFile.LOAD_TRUNCATED_IMAGES, stored = True, _orientation(image)\n            image.load()\n",
        "test_images.py",
    ),
    Defect(
        "threads load the same image at the same time",
        "kosmos_edge/sharing.py",
        "            stack.enter_context(_held(key))",
        "            _held(key)",
        "test_shared_pictures.py",
    ),
    Defect(
        "a pipe in a folder is waited for",
        "kosmos_edge/cli/inputs.py",
        "            what = None if not (self.found or read) else _irregular(self.path)",
        "            what = None if not read else _irregular(self.path)",
        "test_folders.py",
    ),
    Defect(
        "a download with another hash is kept",
        "kosmos_edge/hub/transfer.py",
        "if found != digest.hex:",
        "if len(found) != len(digest.hex):",
        "test_pull.py",
    ),
    # ---- readers of pages
    Defect(
        "an image's positions have no segment",
        "csrc/engine/prompt.cpp",
        "if (position < placed->end) out.segment = image_segment;",
        "if (position < placed->begin) out.segment = image_segment;",
        "test_kosmos2_5.py test_answers.py",
    ),
    Defect(
        "all of a page's padding weighs as much as one row",
        "csrc/models/kosmos2_5.cpp",
        "std::max<int64_t>(1, vit_.padding(rows, cols))",
        "int64_t{1}",
        "test_kosmos2_5.py",
    ),
    Defect(
        "a question for which the model has no prompt is dropped",
        "csrc/tasks/plan.cpp",
        "KE_CHECK(!format.empty() || own_words,",
        "KE_CHECK(!format.empty() || r.text || own_words,",
        "test_kosmos2_5.py test_interfaces.py",
    ),
    Defect(
        "a reader of pages keeps its checkpoint's rule against repeats",
        "convert/models/kosmos2_5.py",
        "(key, kind, 0 if key == rule else value)",
        "(key, kind, value)",
        "test_convert_kosmos2_5.py",
    ),
]
