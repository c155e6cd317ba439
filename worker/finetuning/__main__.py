"""`python -m worker.finetuning CONFIG.json OUTPUT DOCUMENT…`: trains an adapter with no service running.

Several processes, GPUs or machines train it together under `accelerate launch -m worker.finetuning …`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from pydantic import ValidationError

from shared.errors import FinetunedError
from shared.training_config import FineTuningConfig
from worker.finetuning.peft_adapter import PEFTAdapterManager


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 once the adapter is in its folder, 1 with a sentence on stderr."""
    options = _options(arguments)
    processes = PartialState(cpu=not torch.accelerator.is_available())
    logging.basicConfig(level=logging.INFO if processes.is_main_process else logging.ERROR, format="%(message)s")
    try:
        config = FineTuningConfig.model_validate_json(options.config.read_bytes())
        manager = PEFTAdapterManager(config)
        if not manager.setup_fine_tuning_pipeline(options.documents):
            return 1
        manager.train_model(checkpoints=options.checkpoints)
        if processes.is_main_process:
            manager.save_model(options.output)
        processes.wait_for_everyone()
    except (FinetunedError, ValidationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        processes.destroy_process_group()
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.finetuning", description=__doc__)
    parser.add_argument("config", type=Path, help="FineTuningConfig as JSON")
    parser.add_argument("output", type=Path, help="folder of the adapter that is made")
    parser.add_argument("documents", nargs="+", type=Path, help="files to learn from")
    parser.add_argument("--checkpoints", type=Path, help="folder to keep checkpoints in, and to go on from")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
