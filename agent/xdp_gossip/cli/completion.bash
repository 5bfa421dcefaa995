# SPDX-License-Identifier: MIT
# Completion of xdp-gossip for bash: what may stand there is asked of the command itself.
_xdp_gossip() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]}
    # COMP_POINT counts bytes where COMP_LINE is cut by characters.
    [[ ${#COMP_LINE} -eq $(LC_ALL=C; printf %s "${#COMP_LINE}") ]] || {
        local LC_ALL=C
        line=${COMP_LINE:0:COMP_POINT}
        unset LC_ALL
    }
    mapfile -t COMPREPLY < <(COMP_WORDBREAKS=$COMP_WORDBREAKS xdp-gossip completion bash "--line=$line" 2>/dev/null)
    case ${COMPREPLY[0]-} in
        ": files") compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        ": directories") compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        */ | *=) [[ ${#COMPREPLY[@]} -ne 1 ]] || compopt -o nospace ;;
    esac
}
complete -F _xdp_gossip xdp-gossip
