# Counts the lines of a log in the common format, by status and by path.

use strict;
use warnings;

sub handle {
    my ($request) = @_;
    my ($bytes, %statuses, %paths) = (0);
    for (split /\n/, $request->text) {
        /"\S+ (\S+)[^"]*" (\d{3}) (\d+|-)/ or next;
        $paths{$1}++;
        $statuses{$2}++;
        $bytes += $3 eq '-' ? 0 : $3;
    }
    return { statuses => \%statuses, paths => \%paths, bytes => $bytes };
}

1;
