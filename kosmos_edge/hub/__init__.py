"""Which model runs, where models are stored, and how published ones are fetched.

A model is named by a tag (`nano`, `kosmos-2`, `kosmos-2.5:q8_0`), a path, or `user/repo:TYPE` (a repository on the hub
that holds GGUF files). Converted files are in `cache_dir()/models`; downloads stay in huggingface_hub's own cache.
Only `plan` and `pull` use the network, and not if offline.
"""

from kosmos_edge.hub.download import Plan, Progress, converted_bytes, describe_plan, plan, pull
from kosmos_edge.hub.models import (
    KOSMOS2,
    KOSMOS2_REPO,
    NANO,
    NANO_READ,
    PACKAGED,
    LocalModel,
    cache_dir,
    cache_trouble,
    check_type,
    converted_models,
    default_comparer,
    default_model,
    default_reader,
    find_in_hf_cache,
    hf_cache_dir,
    is_offline,
    list_models,
    models_dir,
    nano_path,
    packaged_path,
    path,
    reader_here,
    remember_pulled,
    remove,
    resolve,
    split_repo,
    split_tag,
)
from kosmos_edge.hub.published import IN_PARTS, PUBLISHED, Published
from kosmos_edge.storage import TYPES

__all__ = [
    "IN_PARTS",
    "KOSMOS2",
    "KOSMOS2_REPO",
    "NANO",
    "NANO_READ",
    "PACKAGED",
    "PUBLISHED",
    "TYPES",
    "LocalModel",
    "Plan",
    "Progress",
    "Published",
    "cache_dir",
    "cache_trouble",
    "check_type",
    "converted_bytes",
    "converted_models",
    "default_comparer",
    "default_model",
    "default_reader",
    "describe_plan",
    "find_in_hf_cache",
    "hf_cache_dir",
    "is_offline",
    "list_models",
    "models_dir",
    "nano_path",
    "packaged_path",
    "path",
    "plan",
    "pull",
    "reader_here",
    "remember_pulled",
    "remove",
    "resolve",
    "split_repo",
    "split_tag",
]
