#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -eux

# A source that fails is an error in these tests, not only a warning.
export ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true
export ANSIBLE_ROLES_PATH=..
# ansible-test sets this, and ansible-inventory would warn of it.
unset ANSIBLE_PLAYBOOK_DIR

ansible-playbook -i ../../inventory -e @../../integration_config.yml main.yml "$@"
