#!/bin/bash
# As in the stock image: a shell that stays, and the defaults first, so that the job's own flags win.
tensorflow_model_server --port=8500 --rest_api_port=8501 \
  --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" "$@"
