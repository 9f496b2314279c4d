"""TensorFlow Serving's configuration, generated from the manifest: the same in the packed file and in `tandem run`."""

from adapter.bundle.manifest import Manifest, Model

MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


def models_config(manifest: Manifest, bundle: str) -> str:
    """`--model_config_file` for a bundle unpacked at the absolute path `bundle`."""
    return "model_config_list {\n" + "".join(_model(model, bundle) for model in manifest.models) + "}\n"


def _model(model: Model, bundle: str) -> str:
    return (
        f"  config {{\n"
        f'    name: "{model.name}"\n'
        f'    base_path: "{bundle}/models/{model.name}"\n'
        f'    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{ versions: {model.version} }} }}\n"
        f"  }}\n"
    )
