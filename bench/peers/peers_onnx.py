"""KOSMOS-2's vision tower as ONNX files, in float32 and with dynamically quantized int8 matrix products.

`python bench/peers/peers_onnx.py FOLDER` writes vit-fp32.onnx and vit-int8.onnx; needs torch, transformers, onnx and
onnxruntime. Weights are random. The patch embedding (0.2 % of the work) stays float32 in the int8 file.
"""

import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from transformers import Kosmos2VisionConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2VisionModel


class Tower(torch.nn.Module):
    """The tower without transformers' bookkeeping, which cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        config = Kosmos2VisionConfig()
        config._attn_implementation = "eager"
        self.model = Kosmos2VisionModel(config).eval().model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, 224, 224) -> (1, 257, 1024)"""
        x = self.model.pre_layrnorm(self.model.embeddings(pixels))
        for layer in self.model.encoder.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
        return self.model.post_layernorm(x)


def main() -> None:
    """Command line."""
    folder = Path(sys.argv[1])
    fp32, prepared = folder / "vit-fp32.onnx", folder / "vit-prepared.onnx"
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    pixels = torch.randn(1, 3, 224, 224)
    torch.onnx.export(
        Tower(), (pixels,), str(fp32), input_names=["pixels"], output_names=["features"], opset_version=17, dynamo=False
    )
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(
        str(prepared), str(folder / "vit-int8.onnx"), weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"], extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    prepared.unlink()


if __name__ == "__main__":
    main()
