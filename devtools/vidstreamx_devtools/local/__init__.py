"""The local stack: an AWS emulator, the template deployed to it, the consumer and a viewer."""
