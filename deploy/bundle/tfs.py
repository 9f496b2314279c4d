"""TensorFlow Serving's configuration, generated from the manifest: the same in the packed file and in `tandem run`."""

from collections.abc import Mapping

from adapter.bundle.manifest import Manifest, Model

MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
# How long a batch waits to fill up; the coalescing adapter sends whole batches, so hardly ever.
BATCH_TIMEOUT_MICROS = 2000


def files(manifest: Manifest, bundle: str) -> Mapping[str, str]:
    """Name and text of every file, for a bundle unpacked at the absolute path `bundle`."""
    return {
        "models.config": models_config(manifest, bundle),
        "batching.config": batching_config(manifest),
        "monitoring.config": MONITORING,
    }


def models_config(manifest: Manifest, bundle: str) -> str:
    """`--model_config_file`: each model in exactly its version, under its labels."""
    return "model_config_list {\n" + "".join(_model(model, bundle) for model in manifest.models) + "}\n"


def batching_config(manifest: Manifest) -> str:
    """`--batching_parameters_file`: TensorFlow Serving refuses a request of more rows than a batch may have."""
    return (
        f"max_batch_size {{ value: {manifest.limits.max_batch} }}\n"
        f"batch_timeout_micros {{ value: {BATCH_TIMEOUT_MICROS} }}\n"
    )


def _model(model: Model, bundle: str) -> str:
    labels = "".join(
        f'    version_labels {{ key: "{label}" value: {version} }}\n' for label, version in sorted(model.labels.items())
    )
    return (
        f"  config {{\n"
        f'    name: "{model.name}"\n'
        f'    base_path: "{bundle}/models/{model.name}"\n'
        f'    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{ versions: {model.version} }} }}\n"
        f"{labels}"
        f"  }}\n"
    )
