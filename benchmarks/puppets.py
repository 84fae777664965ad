"""How fast photo puppets are made and rendered: `python -m benchmarks.puppets PORTRAITS [--device cuda]`.

PORTRAITS is a folder of stills with landmarks, as `letstalk synthesize --portraits` takes it. On a CPU one thread
is used and times are CPU seconds, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from letstalk_core.media.puppet.render import Pose, render
from letstalk_research.data.photo.casting import cast, make_people
from letstalk_research.data.photo.stills import load_stills
from letstalk_research.data.photo.truth import flow, landmarks
from letstalk_research.data.synthetic.motion import random_pose

FRAMES, PORTRAITS = 24, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portraits")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--people", type=int, default=1, help="at once (default 1)")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    stills = load_stills(args.portraits)
    seconds = {"people": 0.0, "frames": 0.0, "flow and landmarks": 0.0}
    for number in range(args.rounds + 1):
        rng = np.random.default_rng(number)
        people = [cast(stills, rng) for _ in range(args.people)]
        poses = torch.from_numpy(np.stack([random_pose(rng, PORTRAITS + FRAMES) for _ in people])).to(device)
        times = [_now(device)]
        puppets = make_people(people, device=device)
        times.append(_now(device))
        pose = Pose(puppets, poses)
        (render(pose) * 255).to(torch.uint8)
        times.append(_now(device))
        flow(pose[PORTRAITS:], pose[:PORTRAITS])
        landmarks(pose)
        times.append(_now(device))
        if number:  # the first warms up
            for name, start, end in zip(seconds, times, times[1:], strict=False):
                seconds[name] += end - start
    count = args.rounds * args.people * FRAMES
    for name, spent in seconds.items():
        print(f"{name:20s} {1000 * spent / count:7.2f} ms a frame")
    rate = count / sum(seconds.values())
    print(f"{'all':20s} {rate:7.1f} frames/s, clips of {FRAMES} frames, {args.people} at once")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
