fn main(){ for c in taskrun_operator::crd::custom_resource_definitions() { println!("---"); println!("{}", serde_saphyr::to_string(&c).unwrap()); } }
