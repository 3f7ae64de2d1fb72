//! Which containers are asked for, by what they are.

use wildmatch::WildMatch;

use crate::filter::Filter;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Whose events")]
pub struct Selection {
    /// Only this pod: its name or UID (repeatable)
    #[arg(long, value_name = "NAME|UID")]
    pod: Vec<String>,
    /// Only pods of this Kubernetes namespace (repeatable)
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// Only containers of this image; `*` and `?` stand for any characters (repeatable)
    #[arg(long, value_name = "GLOB")]
    image: Vec<String>,
}

impl Selection {
    /// The filter for it, of these `containers`.
    pub fn filter(self, containers: Vec<String>) -> Filter {
        let Self { pod, namespace, image } = self;
        Filter {
            containers,
            pods: pod,
            namespaces: namespace,
            images: image.iter().map(|glob| WildMatch::new(glob)).collect(),
            ..Filter::default()
        }
    }
}
