# Finds the user's function: which file to load, and which sub in it to call.
package Martlet::Loader;

use strict;
use warnings;
use POSIX ();

my @FILES = qw(handler.pl main.pl src/main.pl function.pl index.pl app.pl);
my @SUBS = qw(handle handler main);

# Makes the process the function's own, loads its code, and returns what to call with a request.
sub load {
    my ($spec) = @_;
    chdir $spec->{code} or die "$spec->{code}: $!\n";
    my %given = (MARTLET_FUNCTION => $spec->{function}, MARTLET_REVISION => $spec->{revision}, %{ $spec->{environment} });
    $ENV{$_} = Martlet::Text::bytes($given{$_}) for keys %given;
    POSIX::tzset();
    unshift @INC, $spec->{code}, "$spec->{code}/lib", "$spec->{code}/local/lib/perl5";
    my ($file, @subs) = locate($spec->{handler});
    $0 = $file;
    my $returned = do { package main; do "$spec->{code}/$file" };
    die $@ if $@;
    die "$file cannot be read: $!\n" if !defined $returned && $!;
    return $returned if ref $returned eq 'CODE';
    for my $name (@subs) {
        no strict 'refs';
        my $full = $name =~ /::/ ? $name : "main::$name";
        return \&$full if defined &$full;
    }
    die "$file has no sub $subs[0], and returns none\n";
}

# `handle`, `file`, `file.pl`, `file:sub`, `file.sub`, `sub`, `Package::sub`.
sub locate {
    my ($handler) = @_;
    return (usual_file(), @SUBS) if $handler eq 'handle';
    my @spellings = ([$handler, @SUBS]);
    push @spellings, [$1, $2] if $handler =~ /\A([^:]+):([^:].*)\z/ || $handler =~ /\A(.+)\.([^.]+)\z/;
    for my $spelling (@spellings) {
        my ($file, @subs) = @$spelling;
        -f $_ && /\.p[lm]\z/ && return ($_, @subs) for $file, "$file.pl";
    }
    return (usual_file(), $handler);
}

sub usual_file {
    -f $_ && return $_ for @FILES;
    my @all = glob '*.pl';
    return $all[0] if @all == 1;
    die 'there is none of ' . join(', ', @FILES) . "; name the file in `handler`\n";
}

1;
