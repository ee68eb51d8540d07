# What this workflow asks of Snakemake beyond its documentation, with the reasons. Two things more are elsewhere:
# package.smk asks for the folder of these files, because `workflow.basedir` is another one in a module, and
# relora_study/session/progress.py for the jobs that run, because Snakemake logs no end of a job with `quiet: progress`.


def configuration_files():
    """The files of the configuration, weakest first, and the keys of the command line: a mistake is told with its place.

    Snakemake lists the Snakefile's config.yaml last, though it is the weakest file.
    """
    overlays = workflow.config_settings.configfiles
    weakest = [file for file in workflow.configfiles if file not in overlays]
    return [*weakest, *overlays], workflow.config_settings.config


def is_module():
    """Whether another Snakefile includes this workflow by `module:`. Snakemake never calls a module's onstart."""
    return not workflow.modifier.is_main_snakefile()


def starts_the_run():
    """Whether this process was started by the user. A job parses these files too, perhaps on another node."""
    return workflow.is_main_process


def jobs_share_this_environment():
    """Whether jobs import from where this process does: they have no environments of conda or containers."""
    return not workflow.deployment_settings.deployment_method


def snakefile():
    """The Snakefile, by which the web report reads the workflow once more."""
    return str(workflow.main_snakefile)
