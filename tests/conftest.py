"""What tests of several rooms share: real data, a home of their own, tiny networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
    PResNetConfig,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pictures, labels and weights beside the repository; read-only, copy before writing."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real data is not on this machine")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests download or draw out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTDETR_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def tiny_config() -> ModelConfig:
    """A complete HGNetv2 RT-DETR whose forward pass takes milliseconds."""
    return ModelConfig(
        name="tiny",
        backbone=HGNetv2Config(
            stem=(4, 8),
            stages=(
                HGStage(mid=4, out=8, blocks=1, layers=2),
                HGStage(mid=4, out=16, blocks=2, layers=2),
                HGStage(mid=8, out=16, blocks=1, kernel=5, layers=2, light=True),
                HGStage(mid=8, out=32, blocks=1, kernel=5, layers=2, light=True),
            ),
        ),
        encoder=EncoderConfig(hidden_dim=16, ffn_dim=32, num_heads=2, num_csp_blocks=1),
        decoder=DecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=3, num_heads=2, num_queries=20),
    )


@pytest.fixture(params=["basic", "bottleneck"])
def tiny_presnet_config(request: pytest.FixtureRequest) -> ModelConfig:
    """The same on ResNet-vd, with narrow CSP blocks as in R18."""
    return ModelConfig(
        name=f"tiny-{request.param}",
        backbone=PResNetConfig(
            blocks=(1, 2, 1, 1),
            bottleneck=request.param == "bottleneck",
            stem=(4, 4, 8),
            widths=(8, 8, 8, 8),
        ),
        encoder=EncoderConfig(
            hidden_dim=16, ffn_dim=32, num_heads=2, num_csp_blocks=1, expansion=0.5
        ),
        decoder=DecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=2, num_heads=2, num_queries=20),
    )
