#!/usr/bin/env bash
exec "$(dirname "$0")/setup-trixie.sh"
