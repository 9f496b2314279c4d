import sys

from deploy.local.model_server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
