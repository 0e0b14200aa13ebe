"""The devices that jax compiles for without having one: what each is to its compiler, and what must be installed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device to compile for.

    Attributes:
        title: what it is called in full.
        platform: "cuda" or "tpu".
        topology: the arguments of `jax.experimental.topologies.get_topology_desc`, which describe `DEVICES` of it or more.
        packages: what has to be installed beside jax, in the version that goes with this jax.
        environment: what the process that compiles needs.
    """

    title: str
    platform: str
    topology: Mapping[str, str]
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """In a line what is not installed, if anything."""
        for package in map(Requirement, self.packages):
            installed = _installed(package.name)
            if installed is None or not package.specifier.contains(installed, prereleases=True):
                found = f"{installed} is installed" if installed else "is not installed"
                needed = f"pip install 'optparity[accelerators]' '{package}'"
                return f"{package.name} {found}; compiling for {self.title} with jax {version('jax')} needs: {needed}"
        return None

    def devices(self) -> list:
        """Devices that jax can compile for, and not run on."""
        from jax.experimental import topologies

        return list(topologies.get_topology_desc(platform=self.platform, **self.topology).devices)[:DEVICES]


DEVICES = 4  # in each topology: for the programs that are sharded

# XLA's stream_executor.GpuTargetConfigProto. XLA decides by these numbers what to fuse and how many threads to start. They are NVIDIA's:
# "H100 Tensor Core GPU Architecture", tables 3 and 6; "A100 Tensor Core GPU Architecture", tables 4 and 5; the limits are those of the
# "CUDA C++ Programming Guide", table "Technical Specifications per Compute Capability".
_GPU = """
platform_name: "CUDA"
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: 0 }}
  core_count: {multiprocessors}
  fpus_per_core: {float32_units}
  clock_rate_ghz: {boost_ghz}
  device_memory_size: {memory_bytes}
  memory_bandwidth: {bytes_per_second}
  l2_cache_size: {l2_bytes}
  shared_memory_per_core: {shared_bytes}
  shared_memory_per_block_optin: {shared_bytes_of_a_block}
  shared_memory_per_block: 49152
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
"""


_LIBTPU = next(needed.partition(";")[0] for needed in requires("jax") or () if needed.startswith("libtpu"))  # with this jax


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu(title: str, **numbers: float) -> Target:
    return Target(
        title=title,
        platform="cuda",
        topology={"topology": f"1x1x{DEVICES}", "target_config": _GPU.format(**numbers)},
        packages=(f"jax-cuda12-pjrt=={version('jaxlib')}", "nvidia-cuda-nvcc-cu12"),
    )


def _tpu(title: str, topology_name: str, accelerator_type: str) -> Target:
    return Target(
        title=title,
        platform="tpu",
        topology={"topology_name": topology_name},
        packages=(_LIBTPU,),
        environment={
            "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
            "TPU_ACCELERATOR_TYPE": accelerator_type,
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "TPU_LOG_DIR": "disabled",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is opened, so there is nothing to be alone with
        },
    )


TARGETS = {
    "h100": _gpu(
        "NVIDIA H100 SXM5 80 GB",
        major=9,
        multiprocessors=132,
        float32_units=128,
        boost_ghz=1.98,
        memory_bytes=80 * 2**30,
        bytes_per_second=3_352_000_000_000,
        l2_bytes=50 * 2**20,
        shared_bytes=228 * 2**10,
        shared_bytes_of_a_block=227 * 2**10,
    ),
    "a100": _gpu(
        "NVIDIA A100 SXM4 80 GB",
        major=8,
        multiprocessors=108,
        float32_units=64,
        boost_ghz=1.41,
        memory_bytes=80 * 2**30,
        bytes_per_second=2_039_000_000_000,
        l2_bytes=40 * 2**20,
        shared_bytes=164 * 2**10,
        shared_bytes_of_a_block=163 * 2**10,
    ),
    "v4": _tpu("TPU v4", "v4:2x2x1", "v4-8"),
    "v5e": _tpu("TPU v5e", "v5e:2x2", "v5litepod-4"),
    "v5p": _tpu("TPU v5p", "v5p:2x2x1", "v5p-8"),
    "v6e": _tpu("TPU v6e", "v6e:2x2", "v6e-4"),
}
