# SPDX-License-Identifier: MIT
# Completion of xdp-gossip for fish: what may stand there is asked of the command itself.
function __xdp_gossip_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found (xdp-gossip completion fish --words $words[2..-1] $current 2>/dev/null)
    switch "$found[1]"
        case ': files'
            __fish_complete_path $current
        case ': directories'
            __fish_complete_directories $current
        case '*'
            string join \n -- $found
    end
end
complete -c xdp-gossip -f -a '(__xdp_gossip_complete)'
